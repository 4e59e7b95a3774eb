"""What the tests of bad input share: how they call the library, and what a refusal must look like.

Imports no torch, which takes seconds: most of these tests need none.
"""

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from paths import REPOSITORY, SCRIPTS

from seqmill.errors import UserError
from seqmill.inputs import shards
from seqmill.inputs.alphabet import PROTEIN
from seqmill.inputs.fasta import Record, read_all
from seqmill.inputs.sample import Sample
from seqmill.models import hub
from seqmill.models.esm2.family import COST as cost
from seqmill.models.weights import Weights

WORKFLOW = REPOSITORY / "workflow"

# Two good records, and what is read from them.
GOOD = b">a first protein\nMKTAYIAKQR\n>b second protein\nMKVLAAGG\n"
RECORDS = [("a", b"MKTAYIAKQR"), ("b", b"MKVLAAGG")]


# Refusals


def refusal(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """The sentence in which a call refuses its arguments."""
    with pytest.raises(UserError) as refused:
        call(*arguments, **options)
    sentence = str(refused.value)
    assert sentence.isprintable(), f"more than one line, or unprintable: {sentence[:500]!r}"
    assert len(sentence) < 500, sentence
    return sentence


def assert_refused(done: subprocess.CompletedProcess[str], sentence: str) -> None:
    """A command ended in failure, with that sentence and without a traceback."""
    said = done.stdout + (done.stderr or "")
    assert done.returncode != 0
    assert "Traceback" not in said, said
    assert sentence in said, said


@contextmanager
def little_memory(more: int = 2 * 2**30) -> Iterator[None]:
    """Let this process have so many bytes more than it has, and no more."""
    with Path("/proc/self/statm").open() as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + more, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


# Files


def written(folder: Path, content: bytes, name: str = "input.fasta") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def listing(folder: Path) -> tuple[list[str], list[str]]:
    """What lies in a folder, and what lies beside it."""
    return sorted(path.name for path in folder.iterdir()), sorted(path.name for path in folder.parent.iterdir())


# The library


def read(*paths: Path | str, invalid: str = "error", duplicate_ids: str = "error") -> Iterator[Record]:
    return read_all(paths, PROTEIN, invalid, duplicate_ids)


def records(*paths: Path | str, invalid: str = "error") -> list[tuple[str, bytes]]:
    """The ids and sequences in these files."""
    return [(protein.id, protein.sequence) for protein in read(*paths, invalid=invalid)]


def shard(path: Path, count: int, folder: Path, **options: str) -> str:
    """Write shards as for ESM-2; options as those of `Sample`."""
    return shards.shard({None: Sample([path], PROTEIN, **options)}, count, folder, cost)


def find_model(name: Path | str, revision: str | None = None) -> Weights:
    return hub.resolve(str(name), revision)


def load_model(folder: Path):
    """The model in a folder, in float32 on the CPU."""
    import torch

    from seqmill.models.loading import load
    from seqmill.models.source import Source

    return load(Source.of(find_model(folder)), torch.float32, torch.device("cpu"), "sdpa")


def embed(found: Weights, path: Path, folder: Path, **chosen: Any) -> dict[str, np.ndarray]:
    """Embed a file in this process, and give the datasets of the result."""
    from small_run import embed

    assert embed(found.folder, path, folder, **chosen) == 0
    with h5py.File(folder / "embeddings.h5") as file:
        return {name: file[name][:] for name in file}


# The scripts


def run_python(*command: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments; what it says is captured unless `options` send it elsewhere."""
    captured = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run(
        [sys.executable, *map(str, command)], text=True, timeout=300, check=False, **(captured | options)
    )


def run_shard(path: Path | str, output: Path | str, **options: Any) -> subprocess.CompletedProcess[str]:
    return run_python(SCRIPTS / "shard.py", "--fasta", path, "--shards", 1, "--output", output, **options)
