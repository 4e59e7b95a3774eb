"""Results made by hand, for pictures of what no small model gives: groups, many sequences, GPUs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seqmill.outputs.datasets import Dataset
from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.layout import lay_out

ATTRIBUTES = {
    "model": "facebook/esm2_t33_650M_UR50D",
    "dtype": "bfloat16",
    "layers": np.array([33]),
    "pooling": ["mean"],
    "attention": "PyTorch SDPA",
    "versions": json.dumps({"seqmill": "0.1.0", "flash-attn": "none"}),
}


def write_result(folder: Path, ids: list[str], values: np.ndarray, lengths: np.ndarray, per="sequence") -> None:
    """An embeddings.h5 and its index.parquet; `values` has a row per sequence, or per letter where `per` is token."""
    folder.mkdir(exist_ok=True)
    name = "mean" if per == "sequence" else "residues"
    dataset = Dataset(name, name, per, 33, values.shape[1], np.dtype(np.float32))
    lay_out(folder / "embeddings.h5", ids, lengths, lengths, [dataset], ATTRIBUTES)
    with EmbeddingFile(folder / "embeddings.h5", writable=True) as file:
        file.write(np.arange(len(ids)), {name: values.astype(np.float32)})
    pd.DataFrame({"id": ids, "length": lengths}).to_parquet(folder / "index.parquet", index=False)


def groups(count: int, width: int, per_group: int, seed: int = 0) -> np.ndarray:
    """Vectors in some groups far apart, one group after the other."""
    random = np.random.default_rng(seed)
    centers = random.normal(scale=10, size=(count, width))
    return np.repeat(centers, per_group, axis=0) + random.normal(size=(count * per_group, width))


def meta(gpu: str | None = "GPU-0", created: str = "2026-11-20T10:00:00+00:00", **more: Any) -> dict[str, Any]:
    """What version 0.1 wrote in a meta.json, as far as pictures read it: 20 s of starting, 100 of computing, 5 of closing."""
    timings = {
        "import_s": 5.0, "read_s": 1.0, "device_s": 2.0, "load_s": 4.0, "compile_s": 6.0, "measure_s": 1.5,
        "embed_s": 100.5, "close_s": 5.0, "steady_s": 100.0, "forward_s": 80.0, "compute_s": 85.0, "gpu_idle_s": 10.0,
        "waited_for_reader_s": 3.0, "waited_for_writer_s": 2.0,
    }  # fmt: skip
    if gpu is None:
        timings |= {"forward_s": 0.0, "compute_s": 0.0, "gpu_idle_s": 0.0}
    peaks = {"peak_allocated_bytes": 6 * 2**30, "peak_reserved_bytes": 8 * 2**30}
    return {
        "device": "NVIDIA H200, 140 GiB, capability 9.0" if gpu else "CPU, 2 threads",
        "device_uuid": gpu,
        "timings": timings,
        "settings": {"batch_size": 32768, "attention": "PyTorch SDPA", "compile": True, "allocator": ""},
        "residues_per_s": 1000.0,
        "model_flop_utilisation": 0.75 if gpu else None,
        "packing_efficiency": 0.99,
        "resumed_after": 0,
        "out_of_memory": [],
        "memory": {"model_bytes": 2**30, **(peaks if gpu else dict.fromkeys(peaks))},
        "created": created,
        **more,
    }
