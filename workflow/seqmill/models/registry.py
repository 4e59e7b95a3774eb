"""The families that seqmill knows; the only file that lists them. Imports no torch."""

from functools import cache
from pathlib import Path

from seqmill.errors import UserError
from seqmill.models.dnabert import family as dnabert
from seqmill.models.esm1 import family as esm1
from seqmill.models.esm2 import family as esm2
from seqmill.models.esmc import family as esmc
from seqmill.models.family import Config, Family, Known
from seqmill.models.t5 import family as t5
from seqmill.models.weights import Weights, found, read_config

FAMILIES: tuple[Family, ...] = (esm2.FAMILY, dnabert.FAMILY, esmc.FAMILY, t5.FAMILY, esm1.FAMILY)


def recognise(weights: Weights) -> tuple[Family, Config]:
    """The family and the sizes of a model, by its config.json and, where that does not say, by its tensors.

    Raises:
        UserError: another architecture, an unreadable config.json, or sizes that make no sense.
    """
    fields = read_config(weights)

    @cache
    def shapes() -> dict[str, tuple[int, ...]]:
        # Only here: what is in a .bin file takes torch to read.
        from seqmill.models.checkpoint import tensor_shapes

        return tensor_shapes(weights)

    for family in FAMILIES:
        if family.accepts(fields, lambda: set(shapes())):
            return family, family.read_config(fields, weights.name, shapes)
    names = ", ".join(family.name for family in FAMILIES)
    what = f"its config.json is of type {fields['model_type']}"
    if not fields["model_type"]:
        what = "it has no config.json, or one without a model_type"
    raise UserError(f"model {weights.name}: {what}; seqmill supports {names} checkpoints")


def of_folder(folder: Path) -> Family | None:
    """The family of a model in a folder; None where there is no such folder, or no model that seqmill can use.

    What is wrong with it, `recognise` says where the model is needed.
    """
    try:
        return recognise(found(folder))[0] if folder.is_dir() else None
    except UserError:
        return None


def by_name(name: str) -> Family:
    """The family of a name."""
    return next(family for family in FAMILIES if family.name == name)


def published_by(name: str) -> Family | None:
    """The family whose authors publish a hub id; None for all others."""
    return next((family for family in FAMILIES if name in family.known or name in family.hub_ids), None)


def known(name: str) -> Known | None:
    """What was tested of a hub id."""
    family = published_by(name)
    return family.known.get(name) if family else None


def hub_ids() -> list[str]:
    """The hub ids that the families' authors publish."""
    return [name for family in FAMILIES for name in family.hub_ids]


def text_files() -> list[str]:
    """Patterns of the files besides weights that any family needs, for a model whose family is not known yet."""
    return sorted({pattern for family in FAMILIES for pattern in family.files})
