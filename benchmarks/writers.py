"""The host's part of an embed job, without a GPU: how fast results reach a file, and what a batch costs the thread that feeds.

The model is a stub whose results lie ready, and everything behind it is the real thing: the loader, the pipeline's `collect`, where a
copy stands for the one from the GPU, the assembly, and the partial result's file. Other checkouts are measured in turns with this one.

    python benchmarks/writers.py --other ../before --folder /dev/shm --output writers.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Before seqmill, of which this process may measure another checkout.
HERE = Path(__file__).resolve().parents[1]
TOKENS = 32_768
# Name: what is stored, its width, and the checkpoint that has it.
CASES = {"residues of 650M": ("residues", 1280), "residues of 8M": ("residues", 320), "mean of 8M": ("mean", 320)}


@contextmanager
def ticking(gaps: list[float]) -> Iterator[None]:
    """A thread that notes how late it wakes: it waits for Python's lock, and on a busy machine for a CPU."""
    ended = threading.Event()

    def tick() -> None:
        while not ended.is_set():
            begun = time.perf_counter()
            time.sleep(0.0005)
            gaps.append(time.perf_counter() - begun - 0.0005)

    thread = threading.Thread(target=tick)
    thread.start()
    yield
    ended.set()
    thread.join()


def measure(case: str, batch_count: int, workers: int, folder: Path) -> dict[str, float]:
    """One run of the checkout that is on the path."""
    import numpy as np
    import torch

    from seqmill.engine import allocator
    from seqmill.engine.assembly import Assembly
    from seqmill.engine.batching import PackedBatches, loader
    from seqmill.engine.pipeline import InFlight, Pipeline
    from seqmill.inputs.fasta import Record
    from seqmill.inputs.sequences import Sequences
    from seqmill.models.esm2.config import tokenizer
    from seqmill.outputs.datasets import resolve
    from seqmill.outputs.partial import Partial
    from seqmill.progress import Progress

    allocator.keep_host_memory()
    torch.set_num_threads(1)
    pooling, width = CASES[case]
    (dataset,) = datasets = resolve((6,), (pooling,), width, "bfloat16")
    sequences = Sequences(list(proteins(batch_count, Record)))
    batches = PackedBatches(sequences, tokenizer().tokens(sequences), tokenizer(), TOKENS, fill=True)
    stored = torch.float16 if dataset.is_per_token else torch.float32
    torch.manual_seed(1)
    ready = torch.randn((TOKENS, width)).to(stored)
    event = torch.cpu.Event()

    class Ready(Pipeline):
        """Results lie ready; a copy brings them to the host, as from a GPU."""

        def submit(self, batch):
            self.current = batch
            rows = int(dataset.rows(batch.content_counts).sum())
            return InFlight(batch, batch, {dataset.name: ready[:rows]}, finite, event, event, event)

        def _to_host(self, values, memory=None):
            if isinstance(values, torch.Tensor):
                return values.clone()
            if memory is None:
                return {name: value.clone() for name, value in values.items()}
            return super()._to_host(values, memory)

    # How whether all is finite comes to the host: nothing that this measures.
    finite = torch.ones(1)
    pipeline = Ready(None, torch.device("cpu"), datasets)
    pipeline.has_ring = dataset.is_per_token
    progress, gaps = Progress(), []
    with (
        tempfile.TemporaryDirectory(dir=folder) as temporary,
        Partial(Path(temporary) / "out.partial", False) as partial,
    ):
        partial.load({}, datasets, sequences)
        attributes = {"attention": "none", "model": "none", "layers": [6]}
        partial.begin(sequences.ids, sequences.lengths, sequences.lengths, datasets, attributes, {})
        assembly = Assembly(batches, datasets)
        progress.begin(np.ones(len(sequences)), sequences.offsets, 0, "residues")
        process, own = time.process_time(), time.thread_time()
        with ticking(gaps):
            pipeline.run(
                loader(batches, workers, False),
                lambda result: partial.write(*assembly.add(result), lambda *_: {}),
                lambda batch: progress.add(batches.finished(batch.index)),
            )
        process, own = time.process_time() - process, time.thread_time() - own
        assert partial.state.done == len(sequences)
        checksum = partial.state.checksums[dataset.name]
    timing, written = pipeline.timing, int(dataset.rows(sequences.lengths).sum()) * dataset.row_bytes
    return {
        "GB/s": written / timing.steady_s / 1e9,
        "CPU_s_per_GB": process / (written / 1e9),
        "ms_per_batch": timing.steady_s / len(batches) * 1e3,
        "feeding_thread_CPU_ms_per_batch": own / len(batches) * 1e3,
        "process_CPU_ms_per_batch": process / len(batches) * 1e3,
        "waited_for_reader_ms_per_batch": timing.waited_for_reader_s / len(batches) * 1e3,
        "tick_late_ms_longest": max(gaps) * 1e3,
        "tick_late_ms_p99": float(np.quantile(gaps, 0.99)) * 1e3,
        "checksum": f"{checksum:016x}",
    }


def ceilings(folder: Path) -> dict[str, float]:
    """What one thread writes to a file per second, where it is new and where it is there already."""
    part, found = os.urandom(8 * 2**20), {}
    with tempfile.TemporaryFile(dir=folder) as file:
        for name in ("new_file_GB/s", "present_file_GB/s"):
            begun = time.perf_counter()
            for number in range(128):
                os.pwrite(file.fileno(), part, number * len(part))
            found[name] = round(128 * len(part) / (time.perf_counter() - begun) / 1e9, 3)
    return found


def proteins(batch_count: int, record: type) -> Iterator[Any]:
    """Random ones, the longest first, of lengths as in a proteome, for about so many batches."""
    import numpy as np

    draw = np.random.default_rng(1)
    lengths = np.sort(np.clip(draw.gamma(2, 165, batch_count * TOKENS // 335).astype(int), 30, 3000))[::-1]
    letters = draw.choice(np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", np.uint8), 3000 + len(lengths))
    for number, length in enumerate(lengths.tolist()):
        yield record(str(number), letters[number : number + length].tobytes(), None, 0)


def compare(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Medians of a few runs of every checkout, in turns."""
    checkouts = {"ours": HERE, **({"other": args.other.resolve()} if args.other else {})}
    rows = []
    for case in args.cases:
        # A residue takes so much more than the rest that fewer batches will do, and more do not fit.
        count = args.batches if "residues" in case else 8 * args.batches
        found: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
        for _ in range(args.rounds):
            for name, checkout in checkouts.items():
                command = [sys.executable, __file__, "--measure", checkout, "--cases", case, "--batches", count]
                command += ["--workers", args.workers, "--folder", args.folder]
                done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(done.stderr)
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
        # The same rows with the same values.
        assert len({run["checksum"] for runs in found.values() for run in runs}) == 1, "checksums differ"
        for name, runs in found.items():
            keys = [key for key in runs[0] if key != "checksum"]
            middle = {key: round(statistics.median(run[key] for run in runs), 3) for key in keys}
            rows.append({"case": case, "checkout": name, "batches": count, **middle})
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--other", type=Path, help="another checkout")
    add("--cases", nargs="+", choices=CASES, default=list(CASES))
    add("--batches", type=int, default=24, help="of residues; of means eight times as many [%(default)s]")
    add("--rounds", type=int, default=5, help="[%(default)s]")
    add("--workers", type=int, default=2, help="processes that prepare batches [%(default)s]")
    add("--folder", type=Path, default=Path("/dev/shm"), help="where files are written [%(default)s]")
    add("--output", type=Path, help="JSON file to write")
    add("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        sys.path.insert(0, str(args.measure / "workflow"))
        print(json.dumps(measure(args.cases[0], args.batches, args.workers, args.folder)))
        return
    rows = compare(args)
    from common import report

    about = {"tokens_per_batch": TOKENS, "workers": args.workers, "rounds": args.rounds, "folder": str(args.folder)}
    about["one_thread_writes"] = ceilings(args.folder)
    report("writers", rows, args.output, **about)


if __name__ == "__main__":
    main()
