"""Which dataset of a result is meant: by pooling and layer, or what is taken where neither is named."""

from collections.abc import Sequence
from pathlib import Path

from seqmill.errors import UserError
from seqmill.outputs.datasets import Dataset


def chosen(stored: Sequence[Dataset], name: str | None, layer: int | None, path: Path) -> Dataset:
    """The one of some datasets that is meant.

    Args:
        stored: at least one.
        name: a representation such as mean, or the name of a dataset; None is mean if that is stored, else the first other.
        layer: one that is stored; None is the last of them.
        path: the file, for messages.

    Raises:
        UserError: it is not stored.
    """
    exact = [dataset for dataset in stored if dataset.name == name]
    if exact and layer in (None, exact[0].layer):
        return exact[0]
    names = sorted({dataset.representation for dataset in stored})
    if name is None:
        name = "mean" if "mean" in names else names[0]
    if name not in names:
        raise UserError(f"{path}: holds no {name} per sequence; it has {', '.join(names)}")
    return of_layer([dataset for dataset in stored if dataset.representation == name], layer, path)


def of_layer(stored: Sequence[Dataset], layer: int | None, path: Path) -> Dataset:
    """The one of some datasets of one representation that is of a layer; None is the last.

    Raises:
        UserError: it is not stored.
    """
    layers = {dataset.layer: dataset for dataset in stored}
    known = sorted(number for number in layers if number is not None)
    if layer is None:
        return layers[known[-1]] if known else stored[0]
    if layer not in layers:
        what, there = stored[0].representation, ", ".join(map(str, known)) or "none"
        raise UserError(f"{path}: holds no {what} of layer {layer}; it has {there}")
    return layers[layer]
