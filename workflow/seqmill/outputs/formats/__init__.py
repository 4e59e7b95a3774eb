"""What a result can be exported to for other tools, a module each with a function `write`.

A new format is one module and one entry here.
"""

from dataclasses import dataclass

from seqmill.outputs.representations import SEQUENCE, TOKEN, Per


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        module: in this package; imported when it is used.
        meaning: what it is, for the table of settings.
        takes: which datasets: with a row per sequence, per token, or both.
    """

    module: str
    meaning: str
    takes: tuple[Per, ...] = (SEQUENCE,)


FORMATS = {
    "h5-per-id": Format("h5_per_id", "HDF5 with a dataset per id, as UniProt has (protspace)", (SEQUENCE, TOKEN)),
    "biotrainer": Format("biotrainer", "HDF5 and FASTA for biotrainer", (SEQUENCE, TOKEN)),
    "parquet": Format("parquet", "a table with a column of vectors (pandas, polars, DuckDB, Hugging Face datasets)"),
    "npy": Format("npy", "NumPy arrays that can be mapped into memory, and ids", (SEQUENCE, TOKEN)),
    "anndata": Format("anndata", ".h5ad (scanpy)"),
    "tsv": Format("tsv", "text, for small results"),
}
