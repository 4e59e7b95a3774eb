"""Embedding from Python, in this process: what the command embed does, for a notebook or a program.

import seqmill

e = seqmill.embed({"P1": "MKTAYIAKQR", "P2": "MKVLAAGG"}, pooling=["mean", "residues"])
e["P1"]                # (width,) the mean over its residues
e.residues("P1")       # (10, width)

e = seqmill.embed("proteins.fasta", model="facebook/esm2_t12_35M_UR50D", output="embedded")
"""

import dataclasses
import gc
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqmill.api.settings import checked
from seqmill.engine import allocator
from seqmill.errors import EXIT_OUT_OF_MEMORY, OutOfMemory, UserError
from seqmill.files import read_json
from seqmill.inputs.fasta import look_at
from seqmill.inputs.given import Given
from seqmill.models import hub
from seqmill.options import MAX_RETRIES
from seqmill.outputs.names import EMBEDDINGS, OOM
from seqmill.outputs.result import Embeddings
from seqmill.settings import Settings

if TYPE_CHECKING:
    from Bio.Seq import Seq
    from Bio.SeqRecord import SeqRecord

    from seqmill.models.weights import Weights

log = logging.getLogger(__name__)


def embed(
    sequences: "str | os.PathLike[str] | Mapping[str, str | Seq] | Iterable[str | Seq | SeqRecord]",
    model: str | os.PathLike[str] = "facebook/esm2_t33_650M_UR50D",
    output: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Embeddings:
    """Embed proteins, or DNA, with a language model, on a GPU if there is one, else on the CPU.

    A sequence that comes more than once is computed once. Numbers and defaults are those of the command `seqmill embed`.
    It can be called from any thread; two calls never share a GPU but wait for one another.

    Args:
        sequences: the path of a FASTA file, plain or gzip; or a dict of ids and sequences; or a list, or anything else
            to iterate over, of sequences, whose ids are then "1", "2" and so on, or of Biopython's records, which have
            ids. All are checked as a file is.
        model: a hub id, or the path of a folder with config.json and weights. It says which letters the sequences may
            have: amino acids, or bases for a model of DNA.
        output: a folder for the result, as the command writes it; an interrupted call with the same folder resumes. None
            is a temporary one, which is removed when what is returned is closed or no longer used.
        settings: those of config.yaml by name and value: `revision`, `dtype`, `layers` ("last", a number or several),
            `pooling` ("auto", "mean", "residues" and others, or several of them), `storage`, `long` ("full", "window",
            "truncate", "error"), `max_length`, `overlap`, `invalid`, `duplicate_ids`,
            `batch_size`, `dataloader_workers`, `attention`, `compile`, `streams`, `pin_memory`, `expandable_segments`,
            `on_oom`, `reuse` (earlier results, whose sequences are not computed again); and `device` ("auto", "cpu", "cuda", "cuda:1") and `overwrite` (a finished result of other settings
            in `output`).
            With on_oom="retry" a smaller batch is tried in this process, three times at most.

    Raises:
        UserError: something is wrong with the sequences or the settings; says which and what to do.
        OutOfMemory: memory ran out; has the batch size that would fit.
    """
    started = time.perf_counter()
    chosen = checked({"model": model, **settings})
    source = _source(sequences)
    in_force = allocator.in_force(chosen.expandable_segments, "torch" in sys.modules)
    temporary = Path(tempfile.mkdtemp(prefix="seqmill-")) if output is None else None
    folder = temporary / "result" if temporary is not None else Path(output)
    try:
        with _as_a_guest():
            weights = hub.resolve(chosen.model, chosen.revision)
            _run(source, folder, weights, chosen, in_force, started)
        return Embeddings(folder / EMBEDDINGS, temporary)
    except BaseException:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def _source(sequences: Any) -> Path | Given:
    if not isinstance(sequences, str | os.PathLike):
        return Given(sequences)
    path = Path(sequences)
    if isinstance(sequences, str) and sequences.isalpha() and not path.exists():
        raise UserError(
            f'there is no file "{sequences[:60]}"; if it is a sequence, give a list: ["{sequences[:20]}..."]'
        )
    # Before a model is looked for.
    look_at(path)
    return path


def _run(
    source: Path | Given, folder: Path, weights: "Weights", settings: Settings, in_force: str, started: float
) -> None:
    """Embed into the folder, with smaller batches where that was asked for.

    Raises:
        OutOfMemory: memory ran out.
    """
    retries = MAX_RETRIES if settings.on_oom == "retry" else 0
    for number in range(retries + 1):
        status, recommended = _attempt(source, folder, weights, settings, in_force, started)
        if status != EXIT_OUT_OF_MEMORY:
            return
        _free()
        if recommended is None or number == retries:
            raise OutOfMemory(read_json(folder / OOM))
        log.warning("retry %d of %d, batch size %s", number + 1, retries, f"{recommended:,}")
        settings, started = dataclasses.replace(settings, batch_size=recommended), time.perf_counter()


def _attempt(*arguments: Any) -> tuple[int, int | None]:
    """One job's exit status, and the batch size it recommends; nothing of it stays in memory."""
    # Only now: torch reads the allocator's configuration when it starts.
    from seqmill.engine.job import Job

    job = Job(*arguments)
    return job.run(), job.recommended


@contextmanager
def _as_a_guest() -> Iterator[None]:
    """Leave the process as it was: its current GPU, and what it keeps of freed memory."""
    import torch

    current = torch.cuda.current_device() if torch.cuda.is_initialized() else 0
    allocator.keep_host_memory()
    try:
        yield
    finally:
        _free()
        if torch.cuda.is_initialized():
            torch.cuda.set_device(current)
        allocator.release_host_memory()


def _free() -> None:
    """Give back what a job has held on the GPU."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        # Pinned memory is kept in the same way, by what older PyTorch cannot be asked for.
        if hasattr(torch.accelerator, "empty_host_cache"):
            torch.accelerator.empty_host_cache()
