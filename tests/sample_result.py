"""A made-up result: every kind of dataset, and ids and descriptions that are hard on file formats."""

from pathlib import Path

import numpy as np
import pandas as pd

from seqmill.outputs.datasets import TOKEN_STARTS, Dataset
from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.layout import lay_out

IDS = ["sp|P1|X/1-20", "sp|P1|X", "50%", "naïve_β", '"quoted"', ".", "NA", "a%2Fb", "a/b", "twin", "1"]
DESCRIPTIONS = ["first protein TARGET=1", "", "tab\there", 'a "word"', "ümläut", "", "NA", "x", "y", "again", ""]
LENGTHS = np.array([5, 9, 1, 30, 17, 3, 4, 8, 2, 4, 6])
ATTRIBUTES = {
    "model": "facebook/esm2_t6_8M_UR50D",
    "layers": [1, 2],
    "pooling": ["mean", "residues"],
    "dtype": "float16",
}
WIDTH = 12


def dataset(name: str, per: str, dtype: type, layer: int | None = 2, width: int = WIDTH) -> Dataset:
    return Dataset(name, name.partition("_layer")[0], per, layer, width, np.dtype(dtype))


VECTORS = [
    dataset("mean_layer1", "sequence", np.float32, 1),
    dataset("mean_layer2", "sequence", np.float32),
    dataset("max_layer2", "sequence", np.float16),
]
ROWS = [
    dataset("residues_layer2", "token", np.float16),
    Dataset(TOKEN_STARTS, TOKEN_STARTS, "token", None, 1, np.dtype("i4")),
]


def index() -> pd.DataFrame:
    """The columns of index.parquet."""
    twins = [None] * len(IDS)
    twins[9] = "NA"
    text = pd.StringDtype(na_value=np.nan)
    table = {
        "id": IDS,
        "length": LENGTHS,
        "duplicate_of": pd.array(twins, dtype=text),
        "residues_replaced": LENGTHS % 3,
    }
    return pd.DataFrame(table | {"description": DESCRIPTIONS, "renamed_from": pd.array([None] * len(IDS), dtype=text)})


def write_result(folder: Path, datasets: list[Dataset] | None = None) -> dict[str, np.ndarray]:
    """Write embeddings.h5 and index.parquet; returns the values of each dataset."""
    datasets, random = VECTORS + ROWS if datasets is None else datasets, np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    lay_out(folder / "embeddings.h5", IDS, LENGTHS, LENGTHS, datasets, ATTRIBUTES)
    values = {}
    with EmbeddingFile(folder / "embeddings.h5", writable=True) as file:
        for each in datasets:
            shape = int(each.rows(LENGTHS).sum()), each.width
            made = random.normal(size=shape) * 100
            values[each.name] = made.astype(each.dtype)
        file.write(np.arange(len(IDS)), values)
    index().to_parquet(folder / "index.parquet", index=False)
    return values


def parts(values: np.ndarray) -> list[np.ndarray]:
    """The rows of each sequence in a dataset with a row per token."""
    return np.split(values, np.cumsum(LENGTHS)[:-1])
