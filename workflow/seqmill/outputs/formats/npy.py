"""NumPy arrays that can be mapped into memory: `mean.npy`, of residues with `offsets.npy`; `ids.txt`, and the index."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seqmill.outputs.datasets import Dataset
from seqmill.outputs.formats.source import Source


def write(source: Source, datasets: Sequence[Dataset], folder: Path) -> None:
    """Write a file per dataset, the ids, one a line, and, of rows per token, where each sequence begins."""
    for dataset in datasets:
        with (folder / f"{dataset.name}.npy").open("wb") as file:
            shape, kind = (source.rows(dataset), dataset.width), np.lib.format.dtype_to_descr(dataset.dtype)
            np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
            for block in source.blocks(dataset):
                # Not tofile, which does not say that the disk is full.
                file.write(block.values[dataset.name].reshape(-1).view(np.uint8))
    if any(dataset.is_per_token for dataset in datasets):
        np.save(folder / "offsets.npy", source.file.offsets)
    with (folder / "ids.txt").open("w", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in source.ids())
    source.copy_index(folder)
