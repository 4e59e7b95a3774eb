"""check and merge of finished shards: CPU seconds, memory, and what they read from a disk whose cache is empty.

The shards hold random numbers and are otherwise as embed writes them, of sequences whose lengths are drawn from a log-normal
distribution, each shard longest first. Each step is a process of its own; its memory is what it owns (RssAnon, sampled 20
times a second: mapped files and the page cache do not count). `--other` names another checkout to do the same with, and both results
are compared. The sizes need room on the disk for all shards twice.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from common import ROOT, report

from seqmill.files import sha256
from seqmill.inputs import sha256sums
from seqmill.outputs import meta
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.embedding_file import METADATA, EmbeddingFile, cut
from seqmill.outputs.index import TEXT
from seqmill.outputs.layout import lay_out

MODEL = ROOT / "resources/esm2_t6_3M_demo"
ROWS = 2**20
DUPLICATES = 0.05
RANDOM = np.random.default_rng(0)


def template(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a finished shard says of itself: its meta.json, and the attributes of its file."""
    (folder / "one.fasta").write_text(">a\nMKTAYIAKQR\n")
    command = [sys.executable, ROOT / "workflow/seqmill", "embed", "--fasta", folder / "one.fasta", "--output"]
    command += [folder / "one", "--model", MODEL, "--device", "cpu"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    with h5py.File(folder / "one/embeddings.h5") as file:
        return json.loads((folder / "one/meta.json").read_text()), dict(file.attrs)


def write_run(folder: Path, records: int, shards: int, dataset: Dataset) -> int:
    """Write a table of records and their finished shards; returns the bytes of the shards."""
    found, attributes = template(folder)
    distinct = records - int(DUPLICATES * records)
    lengths = np.clip(RANDOM.lognormal(5.65, 0.6, distinct), 20, 5_000).astype(np.int64)
    hashes = np.frombuffer(RANDOM.bytes(32 * distinct), np.uint8).reshape(distinct, 32)
    order = np.argsort(-lengths, kind="stable")
    places = np.empty((distinct, 2), np.int64)
    places[order] = np.stack([np.arange(distinct) % shards, np.arange(distinct) // shards], axis=1)
    write_records(folder / "shards", records, lengths, hashes, places)
    size = 0
    for shard in range(shards):
        own = order[shard::shards]
        hexadecimal = hashes[own].tobytes().hex()
        ids = [hexadecimal[start : start + 64] for start in range(0, len(hexadecimal), 64)]
        size += write_shard(folder / "embed" / str(shard), ids, lengths[own], dataset, attributes, found)
    return size


def write_records(folder: Path, records: int, lengths: np.ndarray, hashes: np.ndarray, places: np.ndarray) -> None:
    """Write records.parquet and its SHA256SUMS; the last records repeat earlier sequences, at places drawn at random."""
    folder.mkdir()
    which = np.concatenate([np.arange(len(lengths)), RANDOM.integers(0, len(lengths), records - len(lengths))])
    is_first = np.arange(records) < len(lengths)
    mixed = RANDOM.permutation(records)
    which, is_first = which[mixed], is_first[mixed]
    codes, name = RANDOM.integers(0, 16**9, len(lengths)), "UniRef90_{:09X}".format
    writer = None
    for start in range(0, records, ROWS):
        own, first = which[start : start + ROWS], is_first[start : start + ROWS]
        ids = [f"{name(code)}_{start + number}" for number, code in enumerate(codes[own].tolist())]
        table = pd.DataFrame({"id": ids, "length": lengths[own]})
        table["sequence_sha256"] = [row.tobytes().hex() for row in hashes[own]]
        table["shard"], table["row"] = places[own].T
        # The id itself would do for a reader of one sequence; nothing here looks it up.
        twins = np.where(first, None, [name(code) for code in codes[own].tolist()])
        table["duplicate_of"] = pd.array(twins, TEXT)
        table["residues_replaced"] = 0
        table["description"] = [f"{identifier} Uncharacterized protein n=1 Tax=Bacteria" for identifier in ids]
        table["renamed_from"] = pd.array([None] * len(ids), TEXT)
        found = pa.Table.from_pandas(table, preserve_index=False)
        writer = writer or pq.ParquetWriter(folder / "records.parquet", found.schema)
        writer.write_table(found)
    writer.close()
    sha256sums.write(folder, {"records.parquet": sha256(folder / "records.parquet")})


def write_shard(
    folder: Path,
    ids: list[str],
    lengths: np.ndarray,
    dataset: Dataset,
    attributes: dict[str, Any],
    found: dict[str, Any],
) -> int:
    """Write a finished shard; returns its bytes."""
    folder.mkdir(parents=True)
    path, checksum = folder / "embeddings.h5", 0
    lay_out(path, ids, lengths, lengths, [dataset], attributes)
    with EmbeddingFile(path, writable=True) as file:
        for start, stop in cut(file.sequence_bytes(dataset.name, np.arange(len(ids)))):
            rows = np.arange(start, stop)
            count = int(dataset.rows(lengths[rows]).sum())
            values = RANDOM.standard_normal((count, dataset.width), np.float32).astype(dataset.dtype)
            file.write(rows, {dataset.name: values})
            checksum += file.checksum_of(dataset.name, rows, values)
        file.sync()
        sums = {dataset.name: f"{checksum % 2**64:016x}", METADATA: f"{file.metadata_checksum():016x}"}
    about = {"sequences": len(ids), "residues": int(lengths.sum()), "longest_sequence": int(lengths.max(initial=0))}
    known = {name: value for name, value in found.items() if name != meta.CHECKSUM}
    meta.write(folder, {**known, **about, "datasets": [dataset.name], "checksums": sums})
    return path.stat().st_size


def drop_from_cache(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def anonymous_mib(process: int) -> int:
    """RssAnon of a process; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("RssAnon")), 0)


def bytes_from_disk() -> tuple[int, int]:
    """Read and written by this process and its children that have ended."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"]), int(lines["write_bytes"])


def measure(checkout: Path, step: str, arguments: list[Any]) -> dict[str, Any]:
    """Run one step to its end."""
    command = [sys.executable, checkout / "workflow/seqmill", step, *arguments]
    usage, io, started, peak = resource.getrusage(resource.RUSAGE_CHILDREN), bytes_from_disk(), time.perf_counter(), 0
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(list(map(str, command)), stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, anonymous_mib(process.pid))
            time.sleep(0.05)
        output.seek(0)
        said = output.read().decode()
    if process.returncode:
        return {"failed": said.strip().splitlines()[-1][-200:]}
    after, io_after = resource.getrusage(resource.RUSAGE_CHILDREN), bytes_from_disk()
    return {
        "cpu_s": round(after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime, 2),
        "wall_s": round(time.perf_counter() - started, 1),
        "own_MiB": peak,
        "read_GB": round((io_after[0] - io[0]) / 1e9, 3),
        "written_GB": round((io_after[1] - io[1]) / 1e9, 3),
    }


def steps(folder: Path, shards: int, checkouts: dict[str, Path], size: int, records: int) -> Iterator[dict[str, Any]]:
    """A row per step and version."""
    folders = ["--folders", *(folder / "embed" / str(shard) for shard in range(shards))]
    known = ["--records", folder / "shards/records.parquet"]
    written: dict[str, list[str]] = {}
    for version, checkout in checkouts.items():
        for step in ("check", "merge"):
            outputs = ["--output", folder / "summary.tsv"]
            if step == "merge":
                outputs = ["--embeddings", folder / "embeddings.h5", "--index", folder / "index.parquet"]
            drop_from_cache(folder)
            found = measure(checkout, step, [*folders, *known, *outputs])
            if "cpu_s" in found:
                found["records_per_cpu_s"] = round(records / found["cpu_s"])
                found["read_times_shards"] = round(found["read_GB"] * 1e9 / size, 3)
            row = {
                "version": version,
                "step": step,
                "records": records,
                "shards": shards,
                "shards_GB": round(size / 1e9, 3),
            }
            # Where other programs want the same cores and the same memory, figures say less.
            row |= {**found, "load": round(os.getloadavg()[0], 1)}
            print(row, flush=True)
            yield row
        if "cpu_s" in found:
            paths = [folder / name for name in ("embeddings.h5", "index.parquet")]
            written[version] = [hashlib.file_digest(path.open("rb"), "sha256").hexdigest() for path in paths]
            for path in paths:
                path.unlink()
    if len(written) > 1:
        yield {
            "step": "same bytes",
            "records": records,
            "shards": shards,
            "same": len(set(map(tuple, written.values()))) == 1,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["100000/2", "1000000/8"], help="records/shards")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--residues", action="store_true", help="rows per residue in float16, and not one per sequence")
    parser.add_argument("--other", type=Path, help="another checkout")
    parser.add_argument("--folder", type=Path, help="on the disk to write to")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    dataset = Dataset("mean", "mean", "sequence", 6, args.width, np.dtype(np.float32))
    if args.residues:
        dataset = Dataset("residues", "residues", "token", 6, args.width, np.dtype(np.float16))
    checkouts = {"this": ROOT} | ({"other": args.other} if args.other else {})
    rows = []
    for size in args.sizes:
        records, shards = map(int, size.split("/"))
        folder = Path(tempfile.mkdtemp(dir=args.folder))
        try:
            rows += steps(folder, shards, checkouts, write_run(folder, records, shards, dataset), records)
        finally:
            shutil.rmtree(folder)
    report("merges", rows, args.output, width=args.width, per="residue" if args.residues else "sequence")


if __name__ == "__main__":
    main()
