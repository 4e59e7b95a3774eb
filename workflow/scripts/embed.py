"""Embed the proteins of one FASTA file with a protein language model, on one GPU or on the CPU.

Writes a folder with embeddings.h5 and meta.json, or with oom.json where memory ran out (exit status 3). What is
finished is kept in FOLDER.partial meanwhile: after an interruption the same command goes on from there.
"""

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import logging  # noqa: E402
import multiprocessing  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import NoReturn  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqmill import allocator, cli, sums  # noqa: E402
from seqmill.errors import EXIT_OUT_OF_MEMORY  # noqa: E402

log = logging.getLogger(__name__)

MAX_RETRIES = 3


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--fasta", type=Path, required=True, help="protein sequences, plain or gzip")
    add("--output", type=Path, required=True, metavar="FOLDER", help="folder for the result; created if need be")
    add(
        "--verify-fasta", action="store_true", help="first compare it with the SHA256SUMS that shard.py wrote beside it"
    )
    model = parser.add_argument_group("what to compute (changes the result)")
    add = model.add_argument
    add("--model", default="facebook/esm2_t33_650M_UR50D", help="ESM-2 checkpoint: hub id or folder [%(default)s]")
    add("--revision", help="hub commit, tag or branch [the checked one of known models, else main]")
    add("--weights", type=Path, metavar="JSON", help="record by weights.py of where the model lies; spares the look-up")
    add(
        "--dtype",
        choices=["auto", "float32", "float16", "bfloat16"],
        default="auto",
        help="auto: bfloat16 from Ampere on, float16 on older GPUs, float32 on the CPU [%(default)s]",
    )
    add(
        "--layers",
        type=int,
        nargs="+",
        default=[-1],
        metavar="N",
        help="hidden states to take: 0 the embeddings, -1 the last layer [-1]",
    )
    add(
        "--pooling",
        nargs="+",
        choices=["mean", "bos", "residues"],
        default=["mean"],
        help="mean over residues, the begin token, or every residue's own state [mean]",
    )
    speed = parser.add_argument_group("how to compute (changes speed and memory only)")
    add = speed.add_argument
    add(
        "--batch-size",
        type=cli.auto_or_positive,
        default=None,
        metavar="TOKENS",
        help="tokens in a batch: residues plus two a sequence; a longer sequence makes a batch by itself. auto: what "
        "the GPU's free memory allows, up to 32768, or for large inputs the smallest that is as fast as any [auto]",
    )
    add(
        "--dataloader-workers",
        type=cli.auto_or_count,
        default=None,
        metavar="N",
        help="processes that prepare batches, two ahead each; auto: min(CPUs of this job / GPUs, 8) [auto]",
    )
    add(
        "--pin-memory",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="page-locked host memory for copies to and from the GPU. It takes RAM that cannot be swapped: about 16 "
        "bytes per token of a batch and worker, and with --pooling residues twice tokens x width x 2 bytes (168 MB for "
        "650M at 32,768 tokens). Faster where every residue is stored, next to nothing elsewhere [off]",
    )
    add(
        "--expandable-segments",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="let PyTorch's allocator grow its segments (PYTORCH_CUDA_ALLOC_CONF), which removes most fragmentation. "
        "Works on NVIDIA GPUs from Pascal on under Linux; gains most on cards with little memory and on inputs with "
        "sequences longer than the batch size; without effect on the CPU [off]",
    )
    add(
        "--streams",
        type=int,
        choices=[2, 3],
        default=3,
        help="CUDA streams: 2 computes and copies, 3 copies in and out separately [%(default)s]",
    )
    add(
        "--attention",
        choices=["auto", "flash-attn", "torch", "triton", "sdpa"],
        default="auto",
        help="FlashAttention-2 from the flash-attn package, from PyTorch, or seqmill's own in Triton, or standard "
        "attention; auto takes the first of flash-attn, torch and sdpa that works, and where kernels are compiled triton "
        "if it is faster on this GPU; any other runs or is an error [%(default)s]",
    )
    add(
        "--compile",
        choices=["auto", "on", "off"],
        default="auto",
        help="fused kernels, compiled by Triton; auto: where there is enough work to win the time back [%(default)s]",
    )
    add(
        "--device",
        default="auto",
        help="auto, cpu, cuda or cuda:N; auto takes a free GPU if there is one [%(default)s]",
    )
    add(
        "--on-oom",
        choices=["fail", "retry"],
        default="fail",
        help="out of memory: fail, or retry in a fresh process with the batch size that the diagnosis recommends, up to "
        f"{MAX_RETRIES} times, going on after the last finished batch [%(default)s]",
    )
    add("--retry", type=int, default=0, help=argparse.SUPPRESS)
    add(
        "--keep-partial",
        action="store_true",
        help="keep FOLDER.partial when all is done, too (without taking more room), until check.py removes it: for "
        "workflows that throw away what a job wrote that was killed in its last moment",
    )
    add("--verbose", action="store_true", help="log every batch, stream and operation")
    return parser.parse_args()


def main() -> int:
    args = parse()
    cli.set_up_logging(args.verbose)
    in_force = allocator.configure(args.expandable_segments)
    allocator.keep_host_memory()
    if args.weights is not None:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if args.verify_fasta:
        sums.verify(args.fasta)
    # Only now: torch reads the allocator's configuration when it starts, and --help need not wait for it.
    from seqmill import weights
    from seqmill.job import Job, Settings

    found = weights.Weights.load(args.weights) if args.weights else weights.resolve(args.model, args.revision)
    settings = Settings(
        dtype=args.dtype,
        layers=tuple(args.layers),
        pooling=tuple(dict.fromkeys(args.pooling)),
        batch_size=args.batch_size,
        workers=args.dataloader_workers,
        pin_memory=args.pin_memory,
        streams=args.streams,
        attention=args.attention,
        compile=args.compile,
        device=args.device,
        keep_partial=args.keep_partial,
    )
    log.debug("settings: %s", settings)
    job = Job(args.fasta, args.output, found, settings, in_force, STARTED)
    status = job.run()
    if status == EXIT_OUT_OF_MEMORY and args.on_oom == "retry" and job.recommended and args.retry < MAX_RETRIES:
        retry(job.recommended, args.retry + 1)
    return status


def retry(batch_size: int, number: int) -> NoReturn:
    """Become a fresh process that does the same with another batch size: nothing of this one's memory remains."""
    log.warning("retry %d of %d in a fresh process, batch size %s", number, MAX_RETRIES, f"{batch_size:,}")
    for child in multiprocessing.active_children():
        child.kill()
    # What the driver has open holds memory on the GPU.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.execv(sys.executable, [sys.executable, *sys.argv, "--batch-size", str(batch_size), "--retry", str(number)])


if __name__ == "__main__":
    cli.run(main)
