"""What a run's files take on the disk."""

from collections.abc import Sequence

from seqmill.inputs.census import Census
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.layout import file_bytes
from seqmill.planning.outline import Outline
from seqmill.planning.workload import Workload

# A header of a shard's sequence: '>', a SHA-256 in hexadecimal, and the ends of two lines; its id.
HEADER_BYTES, HASH_BYTES = 67, 64
# Of a record in a table, besides its id and its description, of which some half is left by compression.
ROW_BYTES = 75
COMPRESSED = 0.5
# Text takes some ten characters for the four bytes of a number.
TEXT_TIMES = {"csv": 2.75, "tsv": 2.75}
MERGED = "merged embeddings.h5"


def needed(found: Census, made: Workload, stored: list[Dataset], model: Outline) -> dict[str, float]:
    """Bytes by what they are for; `stored` are the datasets of every file."""
    embedded = sum(
        file_bytes(int(count), HASH_BYTES * count, kept, stored)
        for count, kept in zip(made.sequences, made.kept, strict=True)
    )
    text = found.id_bytes + found.description_bytes
    table = ROW_BYTES * found.records + COMPRESSED * text
    needs = {
        "sequences of the shards": float(found.lengths.sum() + HEADER_BYTES * len(found.lengths)),
        "tables of records": 2 * table,
        "embeddings.h5 of the shards": embedded,
        MERGED: file_bytes(found.records, found.id_bytes, _tokens(found, made), stored),
    }
    return needs if model.is_here else {"weights of the model": model.file_bytes, **needs}


def exports(formats: Sequence[str], found: Census, made: Workload, stored: list[Dataset]) -> dict[str, float]:
    """Bytes of the formats that a result is exported to, by their names: those of the values, more where they are text."""
    tokens = _tokens(found, made)
    values = sum((tokens if dataset.is_per_token else found.records) * dataset.row_bytes for dataset in stored)
    around = found.id_bytes + found.description_bytes
    return {f"export {name}": TEXT_TIMES.get(name, 1.0) * values + around for name in formats}


def _tokens(found: Census, made: Workload) -> float:
    """Content tokens that have a state, of all records: repeated ones count as often as they come."""
    return found.letters * (made.kept.sum() / made.letters.sum() if made.letters.any() else 1.0)
