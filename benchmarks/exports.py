"""Exporting results to the formats of other tools: seconds per row and the peak of memory, from 10,000 to 1,000,000 vectors.

The vectors are random. Each export is a process of its own; its memory is what it takes beyond the libraries that it has
imported (RssAnon: mapped files do not count). Each is deleted before the next, so that the disk needs room for two.
"""

import argparse
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import report

from seqmill.errors import UserError
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.export import export
from seqmill.outputs.formats import FORMATS
from seqmill.outputs.layout import lay_out

BLOCK = 10_000


def write_result(folder: Path, rows: int, width: int) -> None:
    """A result of random vectors, with ids and an index as of UniProt."""
    names = [f"sp|Q{row:08d}|NAME{row % 1_000}_ECOLI" for row in range(rows)]
    lengths = np.full(rows, 300)
    dataset = Dataset("mean", "mean", "sequence", 33, width, np.dtype(np.float32))
    path = folder / "embeddings.h5"
    lay_out(path, names, lengths, lengths, [dataset], {"model": "facebook/esm2_t33_650M_UR50D", "layers": [33]})
    with EmbeddingFile(path, writable=True) as file:
        for first in range(0, rows, BLOCK):
            count = min(BLOCK, rows - first)
            values = np.random.default_rng(first).normal(size=(count, width)).astype(np.float32)
            file.write(np.arange(first, first + count), {"mean": values})
    index = {"id": names, "length": lengths, "sequence_sha256": [f"{row:064x}" for row in range(rows)]}
    index |= {"duplicate_of": pd.array([None] * rows, dtype="string"), "residues_replaced": 0}
    index |= {"description": [f"Protein {row} OS=Escherichia coli (strain K12) OX=83333 PE=1" for row in range(rows)]}
    pd.DataFrame(index).to_parquet(folder / "index.parquet", index=False)


def anonymous_bytes() -> int:
    """RssAnon of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def measure(folder: Path, name: str, queue: "multiprocessing.Queue[dict[str, Any]]") -> None:
    """Export once, in a process of its own."""
    before, peak, done = anonymous_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started, cpu, output = time.perf_counter(), time.process_time(), folder / name
    try:
        export(folder / "embeddings.h5", folder / "index.parquet", name, output)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        size = sum(path.stat().st_size for path in output.iterdir())
        found = {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "GB": round(size / 1e9, 3)}
    except UserError as error:
        found = {"refused": str(error).partition(": ")[2]}
    done.set()
    watcher.join()
    shutil.rmtree(output, ignore_errors=True)
    queue.put(found | {"peak_MiB": round((peak[0] - before) / 2**20)})


def run(folder: Path, name: str, rows: int) -> dict[str, Any]:
    """One row of the table."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=measure, args=(folder, name, queue))
    process.start()
    found = queue.get()
    process.join()
    if "seconds" in found:
        found["us_per_row"] = round(1e6 * found["seconds"] / rows, 1)
    # Where other programs want the same cores, seconds say little.
    found["load"] = round(os.getloadavg()[0], 1)
    print(name, rows, found, flush=True)
    return {"format": name, "rows": rows, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # Not biotrainer, which needs sequences: its HDF5 is that of h5-per-id.
    formats = [name for name in FORMATS if name != "biotrainer"]
    parser.add_argument("--formats", nargs="+", choices=formats, default=formats)
    parser.add_argument("--rows", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--folder", type=Path, help="on the disk to write to")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    found = []
    for rows in args.rows:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            write_result(Path(folder), rows, args.width)
            found += [run(Path(folder), name, rows) for name in args.formats]
    report("exports", found, args.output, width=args.width, cpus=os.cpu_count())


if __name__ == "__main__":
    main()
