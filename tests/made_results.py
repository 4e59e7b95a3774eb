"""Results with vectors that a test gives, as if a model had computed them."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from seqmill.outputs.datasets import Dataset
from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.layout import lay_out
from seqmill.outputs.representations import SEQUENCE, TOKEN

# What a result says of itself; no such model is anywhere.
ATTRIBUTES = {
    "model": "made/up",
    "revision": "",
    "checksum": "0" * 64,
    "dtype": "float32",
    "long": "full",
    "layers": [1],
}


def write_result(
    folder: Path,
    vectors: Mapping[str, np.ndarray],
    sequences: Sequence[str] | None = None,
    descriptions: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    states: np.ndarray | None = None,
    **attributes: str,
) -> Path:
    """Write embeddings.h5 and index.parquet into a folder, and the sequences as input.fasta.

    Args:
        vectors: by the name of the dataset, such as `mean_layer3`; stored in their own dtype.
        sequences: made up, and all distinct, if left out.
        states: (letters of all sequences, width), stored as `residues`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = len(sequences) if sequences is not None else len(next(iter(vectors.values())))
    sequences = sequences if sequences is not None else ["M" * 5 + "AC" * n for n in range(count)]
    ids = ids or [f"p{n}" for n in range(count)]
    lengths = np.array([len(sequence) for sequence in sequences])
    stored = dict(vectors)
    datasets = []
    for name, values in vectors.items():
        representation, _, layer = name.partition("_layer")
        datasets.append(Dataset(name, representation, SEQUENCE, int(layer or 1), values.shape[1], values.dtype))
    if states is not None:
        datasets.append(Dataset("residues", "residues", TOKEN, 1, states.shape[1], states.dtype))
        stored["residues"] = states
    path = folder / "embeddings.h5"
    lay_out(path, ids, lengths, lengths, datasets, ATTRIBUTES | attributes)
    with EmbeddingFile(path, writable=True) as file:
        file.write(np.arange(count), stored)
    descriptions = descriptions or [f"protein {n}" for n in range(count)]
    hashes = [hashlib.sha256(sequence.encode()).hexdigest() for sequence in sequences]
    table = {"id": ids, "length": lengths, "sequence_sha256": hashes, "description": descriptions}
    pd.DataFrame(table).to_parquet(folder / "index.parquet", index=False)
    records = (f">{name}\n{letters}\n" for name, letters in zip(ids, sequences, strict=True))
    (folder / "input.fasta").write_text("".join(records))
    return folder
