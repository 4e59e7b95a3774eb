"""Text with tabs for small results: `mean.tsv` with the id and a column per value, and `index.tsv`."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from seqmill.errors import UserError
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.formats.source import Source

# A value as text, with its tab.
VALUE_BYTES = 13
MAX_BYTES = 10**9


def write(source: Source, datasets: Sequence[Dataset], folder: Path) -> None:
    """Write a file per dataset; a float has as many digits as it takes to read the same value back.

    Raises:
        UserError: the text would be larger than MAX_BYTES.
    """
    size = VALUE_BYTES * sum(source.rows(dataset) * dataset.width for dataset in datasets)
    if size > MAX_BYTES:
        raise UserError(
            f"{source.path}: as text these vectors would take {size / 1e9:.1f} GB, and programs that read text take many "
            f"minutes for more than {MAX_BYTES / 1e9:.0f} GB; take the format parquet or npy"
        )
    for dataset in datasets:
        names = ["id", *(f"{dataset.name}_{number}" for number in range(dataset.width))]
        with (folder / f"{dataset.name}.tsv").open("w", encoding="utf-8") as file:
            file.write("\t".join(names) + "\n")
            for block in source.blocks(dataset):
                ids, lines = block.records.column("id").to_pylist(), _text(block.values[dataset.name])
                file.writelines(f"{_quoted(name)}\t{line}\n" for name, line in zip(ids, lines, strict=True))
    with (folder / "index.tsv").open("w", encoding="utf-8", newline="") as file:
        # Quotes only what needs it: a description may have tabs.
        rows = csv.writer(file, delimiter="\t", lineterminator="\n")
        rows.writerow(source.schema.names)
        for block in source.blocks():
            rows.writerows(zip(*(column.to_pylist() for column in block.records.columns), strict=True))


def _text(values: np.ndarray) -> list[str]:
    """A line per row."""
    # There is no half precision in Arrow's text.
    wide = values.astype(np.float32) if values.dtype == np.float16 else values
    columns = [pa.array(column) for column in np.ascontiguousarray(wide.T)]
    written = pa.BufferOutputStream()
    options = pa_csv.WriteOptions(include_header=False, delimiter="\t")
    pa_csv.write_csv(pa.Table.from_arrays(columns, list(map(str, range(len(columns))))), written, options)
    return written.getvalue().to_pybytes().decode().splitlines()


def _quoted(name: str) -> str:
    """An id, which has no tabs, as the csv of Python and of R reads it."""
    return '"' + name.replace('"', '""') + '"' if '"' in name else name
