"""Splitting FASTA into shards, and reading a shard: records per CPU second and memory, from 100,000 records to 10,000,000.

The records are those of a proteome again and again, their letters exchanged for others in another way each time, and 5 % of
them as the time before, so that they are duplicates. Each step is a process of its own; its memory is RssAnon (mapped
files do not count). `--other` measures another checkout's `seqmill shard` beside this one's.
"""

import argparse
import gzip
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, report

from seqmill.inputs.alphabet import PROTEIN
from seqmill.inputs.sequences import Sequences
from seqmill.inputs.shard_file import ShardFile

PROTEOME = ROOT / "resources/ecoli_k12_UP000000625.fasta.gz"
LETTERS = b"ACDEFGHIKLMNPQRSTVWY"
REPEATED = 20


def write_fasta(path: Path, records: int) -> None:
    """So many records, of which one in REPEATED has a sequence of before."""
    given = gzip.decompress(PROTEOME.read_bytes()).split(b"\n>")
    given[0], given[-1] = given[0].removeprefix(b">"), given[-1].removesuffix(b"\n")
    random = np.random.default_rng(0)
    headers, bodies = zip(*(record.split(b"\n", 1) for record in given), strict=True)
    before = table = None
    with path.open("wb") as file:
        for time_ in range(-(-records // len(given))):
            before, table = table, bytes.maketrans(LETTERS, bytes(random.permutation(list(LETTERS)).tolist()))
            for number in range(min(len(given), records - time_ * len(given))):
                own = before if before and number % REPEATED == 0 else table
                file.write(b">%d_%s\n%s\n" % (time_, headers[number], bodies[number].translate(own)))


def anonymous_bytes(process: int) -> int:
    """RssAnon of a process; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def watched(process: int, done: threading.Event, peak: list[int]) -> None:
    while not done.wait(0.05):
        peak[0] = max(peak[0], anonymous_bytes(process))


def shard(checkout: Path, fasta: Path, output: Path, shards: int) -> dict[str, Any]:
    """CPU seconds and memory of the command shard."""
    before = os.times()
    command = [sys.executable, checkout / "workflow/seqmill", "shard", "--fasta", fasta, "--shards", str(shards)]
    process = subprocess.Popen([*command, "--output", output], stdout=subprocess.DEVNULL)
    done, peak = threading.Event(), [0]
    watcher = threading.Thread(target=watched, args=(process.pid, done, peak))
    watcher.start()
    status = process.wait()
    done.set()
    watcher.join()
    if status:
        raise SystemExit(f"shard of {checkout} failed")
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return {"cpu_seconds": round(seconds, 2), "anonymous_MiB": round(peak[0] / 2**20)}


def read(path: Path, queue: "multiprocessing.Queue[dict[str, Any]]") -> None:
    """CPU seconds and memory of reading a verified shard, in a process of its own."""
    before, started = anonymous_bytes(os.getpid()), time.process_time()
    file = ShardFile(path)
    verified = time.process_time()
    sequences = Sequences.of_shard(file.take(PROTEIN))
    read = time.process_time()
    sequences.digest()
    digested = time.process_time()
    more = anonymous_bytes(os.getpid()) - before - len(sequences.letters)
    seconds = {"verify": verified - started, "read": read - verified, "digest": digested - read}
    queue.put(
        {"sequences": len(sequences)}
        | {f"{name}_cpu_seconds": round(value, 2) for name, value in seconds.items()}
        | {"bytes_a_record_beyond_letters": round(more / len(sequences))}
    )


def in_a_process(path: Path) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=read, args=(path, queue))
    process.start()
    found = queue.get()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", nargs="+", type=int, default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--other", type=Path, help="a checkout of another version")
    parser.add_argument("--other-up-to", type=int, default=1_000_000, help="records up to which it is measured, too")
    parser.add_argument("--folder", type=Path, help="on the disk to write to, with room for three times the FASTA")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    found = []
    for records in args.records:
        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            folder = Path(name)
            write_fasta(folder / "input.fasta", records)
            checkouts = {"this": ROOT} | ({"other": args.other} if args.other and records <= args.other_up_to else {})
            for version, checkout in checkouts.items():
                row = shard(checkout, folder / "input.fasta", folder / "shards", args.shards)
                row["records_per_cpu_second"] = round(records / row["cpu_seconds"])
                row = {"version": version, "records": records, **row, "load": round(os.getloadavg()[0], 1)}
                if version == "this":
                    row |= in_a_process(folder / "shards/0.fasta")
                print(row, flush=True)
                found.append(row)
                shutil.rmtree(folder / "shards")
    report("shards", found, args.output, shards=args.shards, cpus=os.cpu_count())


if __name__ == "__main__":
    main()
