"""The families that seqmill knows; the only file that lists them. Imports no torch."""

from seqmill.errors import UserError
from seqmill.inputs.alphabet import Alphabet
from seqmill.models.esm1 import family as esm1
from seqmill.models.esm2 import family as esm2
from seqmill.models.esmc import family as esmc
from seqmill.models.family import Family, Known
from seqmill.models.weights import Weights, read_config

FAMILIES: tuple[Family, ...] = (esm2.FAMILY, esm1.FAMILY, esmc.FAMILY)


def recognise(weights: Weights) -> Family:
    """The family of a model, by its config.json and, where that does not say, by the names of its tensors.

    Raises:
        UserError: another architecture, or an unreadable config.json.
    """
    fields = read_config(weights)

    def tensor_names() -> set[str]:
        # Only here: the names in a .bin file take torch to read.
        from seqmill.models.checkpoint import tensor_names

        return tensor_names(weights)

    for family in FAMILIES:
        if family.accepts(fields, tensor_names):
            return family
    names = ", ".join(family.name for family in FAMILIES)
    raise UserError(
        f"model {weights.name}: its config.json is of type {fields['model_type']}; seqmill supports {names} checkpoints"
    )


def alphabets() -> dict[str, Alphabet]:
    """All alphabets that a family has, by name; the first family's is the first."""
    return {family.alphabet.name: family.alphabet for family in FAMILIES}


def tested_family(name: str) -> Family:
    """The family of a hub id that was tested; the first one for all others."""
    return next((family for family in FAMILIES if name in family.known), FAMILIES[0])


def known(name: str) -> Known | None:
    """What was tested of a hub id."""
    return tested_family(name).known.get(name)


def hub_ids() -> list[str]:
    """The hub ids that the families' authors publish."""
    return [name for family in FAMILIES for name in family.hub_ids]


def text_files() -> list[str]:
    """Patterns of the files besides weights that any family needs, for a model whose family is not known yet."""
    return sorted({pattern for family in FAMILIES for pattern in family.files})
