"""What a plan knows of a model, which need not be on this machine yet. Imports no torch."""

import difflib
from dataclasses import dataclass, replace
from pathlib import Path

from seqmill.errors import UserError
from seqmill.inputs.alphabet import Alphabet
from seqmill.models import registry
from seqmill.models.family import Config, Family
from seqmill.models.weights import Weights, found
from seqmill.planning import published

# Of a number in published weights, as nearly all are.
BYTES_PER_PARAMETER = 4


@dataclass(frozen=True)
class Outline:
    """A model's family and sizes, before it is loaded.

    Attributes:
        name: hub id or folder.
        file_bytes: of its weights.
        source: where the sizes are from, in words.
        is_here: whether its weights are on this machine.
    """

    name: str
    family: Family
    config: Config
    file_bytes: float
    source: str
    is_here: bool = True

    @property
    def loaded_bytes(self) -> float:
        """What is read of the weights, at most in float32."""
        return min(self.file_bytes, BYTES_PER_PARAMETER * self.config.parameter_count)

    @property
    def alphabet(self) -> Alphabet:
        """What its sequences may be."""
        if self.config.max_tokens is None:
            return self.family.alphabet
        return replace(self.family.alphabet, longest=self.config.max_tokens - self.family.cost.special_tokens)


def of(name: str, revision: str | None, record: Path) -> Outline:
    """A model by its hub id or folder.

    Args:
        record: weights.json of a run, perhaps of another model, or not there.

    Raises:
        UserError: its sizes are not known on this machine, or it is none that seqmill can use.
    """
    if Path(name).is_dir():
        return _of_weights(found(Path(name)), name, "its folder")
    if (recorded := _recorded(record, name)) is not None:
        return _of_weights(recorded, name, str(record))
    if (fields := published.fields().get(name)) is not None:
        family = registry.published_by(name)
        config = family.read_config(fields, name, dict)
        size = published.BYTES.get(name, BYTES_PER_PARAMETER) * config.parameter_count
        return Outline(name, family, config, size, "its published sizes", is_here=False)
    if (cached := _cached(name, revision)) is not None:
        return _of_weights(found(cached), name, "this machine's cache of the hub")
    close = difflib.get_close_matches(name, published.fields(), 1, cutoff=0.9)
    advice = f"did you mean {close[0]}?" if close else "check the name, or fetch the model first (the command weights)"
    raise UserError(
        f"model {name}: there is no such folder, and neither seqmill nor this machine's cache of the hub knows the sizes of such "
        f"a model; {advice}"
    )


def _of_weights(weights: Weights, name: str, source: str) -> Outline:
    family, config = registry.recognise(replace(weights, name=name))
    size = sum((Path(weights.folder) / file).stat().st_size for file in weights.files)
    return Outline(name, family, config, size, source)


def _recorded(record: Path, name: str) -> Weights | None:
    """The record of a run's model, if it is of this model and the files are still there."""
    try:
        weights = Weights.load(record)
    except UserError:
        return None
    is_there = all((Path(weights.folder) / file).is_file() for file in weights.files)
    return weights if weights.name == name and is_there else None


def _cached(name: str, revision: str | None) -> Path | None:
    """The folder of a hub model that was fetched before; None where there is none. Asks no network."""
    # Only here: a model in a folder need not wait for the hub's client to be imported.
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None
