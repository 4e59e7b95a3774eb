"""The exact search of nearest neighbours, all against all: seconds, operations per second and peak memory.

The vectors are random, in clusters that all point nearly the same way, as those of proteins do. Some queries are compared
with brute force in float64.
"""

import argparse
import logging
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import report

from seqmill.analysis import tables
from seqmill.analysis.neighbors import SCHEMA, Sizes, neighbors
from seqmill.analysis.vectors import Vectors
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.layout import lay_out
from seqmill.outputs.names import EMBEDDINGS
from seqmill.outputs.representations import SEQUENCE
from seqmill.units import GIB

BLOCK = 2**16
CLUSTER = 1_000
CHECKED = 100


def write_vectors(folder: Path, count: int, width: int, device: torch.device) -> None:
    """A result with `count` vectors, about CLUSTER in each cluster."""
    numbers = torch.Generator(device).manual_seed(0)

    def normal(rows: int) -> torch.Tensor:
        return torch.randn((rows, width), generator=numbers, device=device)

    path, dataset = folder / EMBEDDINGS, Dataset("mean", "mean", SEQUENCE, 1, width, np.dtype(np.float32))
    lengths = np.full(count, 350)
    lay_out(path, [f"p{n}" for n in range(count)], lengths, lengths, [dataset], {"layers": [1], "model": "random"})
    clusters = max(count // CLUSTER, 1)
    centres = 3 * normal(1) + normal(clusters)
    with EmbeddingFile(path, writable=True) as file:
        for start in range(0, count, BLOCK):
            rows = np.arange(start, min(start + BLOCK, count))
            own = torch.randint(clusters, (len(rows),), generator=numbers, device=device)
            values = centres[own] + 0.5 * normal(len(rows))
            file.write(rows, {"mean": values.cpu().numpy()})


def agreeing(folder: Path, found: Path, count: int, k: int, device: torch.device) -> int:
    """Of CHECKED queries those whose neighbours are those of brute force in float64."""
    from pyarrow import parquet

    table = parquet.read_table(found, columns=["neighbor"])
    asked = np.linspace(0, count - 1, min(CHECKED, count)).astype(int)
    with Vectors(folder) as vectors:
        queries = unit(torch.from_numpy(vectors.take(asked)).to(device))
        blocks = []
        for start in range(0, count, BLOCK):
            block = torch.from_numpy(vectors.read(start, min(start + BLOCK, count))).to(device)
            blocks.append((queries @ unit(block).T).float().cpu())
    scores = torch.cat(blocks, dim=1).numpy()
    scores[np.arange(len(asked)), asked] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    # Every query has k rows, in the order of the file.
    places = table["neighbor"].combine_chunks().take((asked[:, None] * k + np.arange(k)).ravel()).to_pylist()
    return sum(places[n * k : (n + 1) * k] == [f"p{row}" for row in best[n]] for n in range(len(asked)))


def unit(values: torch.Tensor) -> torch.Tensor:
    values = values.double()
    return values / values.norm(dim=1, keepdim=True)


def measure(folder: Path, count: int, width: int, k: int, device: torch.device) -> dict[str, Any]:
    """One search, with its table."""
    started = time.perf_counter()
    write_vectors(folder, count, width, device)
    made = time.perf_counter()
    found = folder / "neighbors.parquet"
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    begun, first = time.perf_counter(), []

    def timed(parts: Any) -> Any:
        for part in parts:
            first.append(time.perf_counter())
            yield part

    with Vectors(folder) as vectors:
        rows = tables.write(found, SCHEMA, timed(neighbors(vectors, None, k, device)))
    ended = time.perf_counter()
    seconds = ended - begun
    gpu = torch.cuda.max_memory_allocated() / GIB if device.type == "cuda" else 0.0
    return {
        "sequences": count,
        "width": width,
        "k": k,
        "seconds": round(seconds, 2),
        "until_first_rows_s": round(first[0] - begun, 2),
        "TFLOP/s": round(2 * count**2 * width / (first[0] - begun) / 1e12, 3),
        "rows": rows,
        "gpu_GiB": round(gpu, 2),
        "host_GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB, 2),
        "generated_s": round(made - started, 2),
        "as_brute_force": f"{agreeing(folder, found, count, k, device)} of {min(CHECKED, count)}",
        "passes": -(-count // Sizes.fitting(device, width, k).queries),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sequences", type=int, nargs="+", default=[20_000], help="how many; each is a row [%(default)s]"
    )
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="where the vectors are written; /dev/shm takes no disk")
    parser.add_argument("--output", type=Path, help="file for the results (JSON)")
    args = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        # The first product loads libraries.
        torch.ones((64, 64), device=device) @ torch.ones((64, 64), device=device)
    rows = []
    for count in args.sequences:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            rows.append(measure(Path(folder), count, args.width, args.k, device))
    report("neighbors", rows, args.output)


if __name__ == "__main__":
    main()
