"""What a run's files take on the disk."""

from collections.abc import Sequence

from seqmill.inputs.census import Census
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.layout import file_bytes
from seqmill.planning.outline import Outline

# A header of a shard's sequence: '>', a SHA-256 in hexadecimal, and the ends of two lines; its id.
HEADER_BYTES, HASH_BYTES = 67, 64
# Of a record in a table, besides its id and its description, of which some half is left by compression.
ROW_BYTES = 75
COMPRESSED = 0.5
MERGED = "merged embeddings.h5"


def needed(
    found: Census,
    sequences: Sequence[int],
    letters: Sequence[float],
    stored: list[Dataset],
    model: Outline,
    is_here: bool,
) -> dict[str, float]:
    """Bytes by what they are for.

    Args:
        sequences, letters: of each shard.
        stored: the datasets of every file.
        is_here: whether the weights are on this machine.
    """
    # Content tokens: those that stand for letters.
    per_letter = 1 / model.family.cost.letters_per_token
    embedded = sum(
        file_bytes(int(count), HASH_BYTES * count, total * per_letter, stored)
        for count, total in zip(sequences, letters, strict=True)
    )
    text = found.id_bytes + found.description_bytes
    table = ROW_BYTES * found.records + COMPRESSED * text
    needs = {
        "sequences of the shards": float(found.lengths.sum() + HEADER_BYTES * len(found.lengths)),
        "tables of records": 2 * table,
        "embeddings.h5 of the shards": embedded,
        MERGED: file_bytes(found.records, found.id_bytes, found.letters * per_letter, stored),
    }
    return needs if is_here else {"weights of the model": model.file_bytes, **needs}
