"""Embed the sequences of one FASTA file with a language model, on one GPU or on the CPU.

Writes a folder with embeddings.h5, index.parquet and meta.json, or with oom.json if memory ran out (exit status 3).
Finished batches are saved in FOLDER.partial; after an interruption the same command resumes from them. A sequence that
comes more than once is computed once.
"""

import argparse
import dataclasses
import logging
import multiprocessing
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from seqmill import cli
from seqmill.engine import allocator
from seqmill.errors import EXIT_OUT_OF_MEMORY
from seqmill.inputs.fasta import look_at
from seqmill.inputs.shard_file import ShardFile
from seqmill.options import MAX_RETRIES
from seqmill.progress import Progress
from seqmill.settings import Settings
from seqmill.settings import add_arguments as add_settings

log = logging.getLogger(__name__)

# Close enough to the start of the process: nothing slow is imported before.
STARTED = time.perf_counter()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--fasta", type=Path, required=True, help="the sequences, plain or gzip")
    add("--output", type=Path, required=True, metavar="FOLDER", help="folder for the result; created if need be")
    add(
        "--verify-fasta",
        action="store_true",
        help="it is a shard: first compare it with the SHA256SUMS that the command shard wrote beside it, and write no "
        "index.parquet, as records.parquet is there",
    )
    result = parser.add_argument_group("what to compute (changes the result)")
    add_settings(result, changes_result=True)
    result.add_argument(
        "--weights",
        type=Path,
        metavar="JSON",
        help="record of the model written by the command weights, instead of --model",
    )
    speed = parser.add_argument_group("how to compute (changes speed and memory only)")
    add_settings(speed, changes_result=False)
    add = speed.add_argument
    add(
        "--device",
        default="auto",
        help="auto, cpu, cuda or cuda:N; auto takes a free GPU if there is one [%(default)s]",
    )
    add("--retry", type=int, default=0, help=argparse.SUPPRESS)
    # For workflows: lines for people, who want more of them than a log does.
    add("--progress-fd", type=int, metavar="N", help=argparse.SUPPRESS)
    add(
        "--keep-partial",
        action="store_true",
        help="keep FOLDER.partial (hard links, no extra space) until the command check removes it; needed by workflows that "
        "delete the output of killed jobs",
    )
    add("--overwrite", action="store_true", help="replace a finished result of other settings or sequences in FOLDER")
    add("--verbose", action="store_true", help="log every batch, stream and operation")


def run(args: argparse.Namespace) -> int:
    name = args.output.resolve().name
    progress = Progress(f"shard {name}" if args.verify_fasta else name, args.progress_fd).watch()
    in_force = allocator.configure(args.expandable_segments)
    allocator.keep_host_memory()
    if args.weights is not None:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if not args.verify_fasta:
        # Before a model is looked for, perhaps for minutes.
        look_at(args.fasta)
    with cli.importing(), ThreadPoolExecutor(1) as reader:
        # While torch is imported, which takes seconds.
        fasta = reader.submit(ShardFile if args.verify_fasta else Path, args.fasta)
        # Only now: torch reads the allocator's configuration when it starts, and --help need not wait for it.
        from seqmill.engine.job import Job
        from seqmill.models import hub
        from seqmill.models.weights import Weights
        from seqmill.outputs import earlier

    progress.phase = "looking for the model"
    found = Weights.load(args.weights) if args.weights else hub.resolve(args.model, args.revision)
    settings = dataclasses.replace(Settings.of(args), index=not args.verify_fasta)
    if args.verify_fasta:
        settings = dataclasses.replace(settings, fitting=earlier.recorded(args.fasta.parent))
    log.debug("settings: %s", settings)
    job = Job(fasta.result(), args.output, found, settings, in_force, STARTED, progress)
    status = job.run()
    if status == EXIT_OUT_OF_MEMORY and args.on_oom == "retry" and job.recommended and args.retry < MAX_RETRIES:
        retry(job.recommended, args.retry + 1, args.progress_fd)
    return status


def retry(batch_size: int, number: int, progress: int | None) -> NoReturn:
    """Become a fresh process that does the same with another batch size: nothing of this one's memory remains."""
    log.warning("retry %d of %d in a fresh process, batch size %s", number, MAX_RETRIES, f"{batch_size:,}")
    for child in multiprocessing.active_children():
        child.kill()
    # What the driver has open holds memory on the GPU.
    last = os.sysconf("SC_OPEN_MAX")
    if progress is None:
        os.closerange(3, last)
    else:
        os.closerange(3, progress)
        os.closerange(progress + 1, last)
    os.execv(
        sys.executable, [sys.executable, *sys.orig_argv[1:], "--batch-size", str(batch_size), "--retry", str(number)]
    )
