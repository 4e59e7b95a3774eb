"""What a stored dataset is: resolved once from the settings and the model, then carried everywhere."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqmill.errors import UserError
from seqmill.inputs.windows import FULL, TRUNCATE, WINDOW
from seqmill.outputs.representations import REPRESENTATIONS, SEQUENCE, TOKEN, Per

# Where in its sequence, counted in letters from 0, each content token begins.
TOKEN_STARTS = "token_starts"
# In how many windows a sequence was embedded; how many of its letters were, where long ones are cut off.
WINDOWS, EMBEDDED = "windows", "embedded"


@dataclass(frozen=True)
class Dataset:
    """One dataset of a result file.

    Attributes:
        name: in the file.
        representation: a key of REPRESENTATIONS, or what another version of seqmill calls it.
        per: whether it has a row per sequence or per content token.
        layer: the hidden states it is taken from, 0 the embeddings; None for what no model computes.
        width: values in a row.
        dtype: as stored.
    """

    name: str
    representation: str
    per: Per
    layer: int | None
    width: int
    dtype: np.dtype

    @property
    def row_bytes(self) -> int:
        return self.width * self.dtype.itemsize

    @property
    def is_per_token(self) -> bool:
        return self.per == TOKEN

    @property
    def is_computed(self) -> bool:
        """Whether a model computes it; what describes sequences or tokens it does not."""
        return self.layer is not None

    def rows(self, token_counts: np.ndarray) -> np.ndarray:
        """(S,) rows that each of some sequences has in this dataset, from their content tokens."""
        return token_counts if self.is_per_token else np.ones_like(token_counts)

    def attributes(self) -> dict[str, Any]:
        """What the file says of it besides shape and dtype."""
        found = {"representation": self.representation, "per": self.per, "layer": self.layer}
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def stored(
        cls, name: str, width: int, dtype: np.dtype, attributes: Mapping[str, Any], layers: Sequence[int]
    ) -> "Dataset":
        """A dataset as a file has it; `layers` are the file's.

        Version 0.1 stored no attributes: there the name says all, `residues_layer30`, or `residues` with one layer.
        """
        if "per" in attributes:
            layer = int(attributes["layer"]) if "layer" in attributes else None
            return cls(name, str(attributes["representation"]), str(attributes["per"]), layer, width, dtype)
        found = re.fullmatch(r"(.+)_layer(\d+)", name)
        representation, layer = (found[1], int(found[2])) if found else (name, int(layers[0]) if len(layers) else None)
        return cls(name, representation, TOKEN if representation == "residues" else SEQUENCE, layer, width, dtype)


def resolve(
    layers: Sequence[int],
    pooling: Sequence[str],
    width: int,
    dtype: str,
    single_letters: bool = True,
    storage: str | None = None,
    long: str = FULL,
) -> list[Dataset]:
    """The datasets of a result.

    One layer gives the representation's plain name (`mean`), several give one dataset each (`mean_layer30`).
    TOKEN_STARTS tells where tokens of several letters begin, WINDOWS and EMBEDDED what was done to long sequences.

    Args:
        layers: absolute numbers, see `resolve_layers`.
        pooling: keys of REPRESENTATIONS.
        width: of a hidden state.
        dtype: what is computed in.
        single_letters: whether each content token is one letter.
        storage: the dtype of what is stored; None is half precision for values per token where they are computed in it,
            and float32 for all others.
        long: what becomes of long sequences, see `windows.Treatment`.
    """
    half = np.dtype(storage or (np.float32 if dtype == "float32" else np.float16))
    single = np.dtype(storage or np.float32)

    def make() -> Iterator[Dataset]:
        for layer in layers:
            for name in pooling:
                per = REPRESENTATIONS[name].per
                stored = name if len(layers) == 1 else f"{name}_layer{layer}"
                yield Dataset(stored, name, per, layer, width, half if per == TOKEN else single)

    made = list(make())
    if not single_letters and any(dataset.is_per_token for dataset in made):
        made.append(_known(TOKEN_STARTS, TOKEN))
    if long in (WINDOW, TRUNCATE):
        made.append(_known(WINDOWS if long == WINDOW else EMBEDDED, SEQUENCE))
    return made


def _known(name: str, per: Per) -> Dataset:
    """A dataset that no model computes."""
    return Dataset(name, name, per, None, 1, np.dtype(np.int32))


def resolve_layers(requested: Sequence[int], layer_count: int) -> tuple[int, ...]:
    """Absolute layer numbers, ascending and distinct; -1 is the last, 0 the embeddings.

    Raises:
        UserError: the model has no such layer.
    """
    for layer in requested:
        if not -layer_count - 1 <= layer <= layer_count:
            raise UserError(f"layers: there is no layer {layer}; this model has 0 (embeddings) to {layer_count} (last)")
    return tuple(sorted({layer % (layer_count + 1) for layer in requested}))
