"""The steps of the workflow without Snakemake, in this process."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from seqmill.engine.job import Job
from seqmill.inputs import shards
from seqmill.inputs.sample import Sample
from seqmill.models import hub, registry
from seqmill.outputs import earlier, reused, verify
from seqmill.outputs.merge import merge
from seqmill.settings import Settings


def embed(model: Path, fasta: Path, folder: Path, **settings: Any) -> int:
    """Embed one file into one folder on the CPU, with settings by the names of `Settings`; returns the exit status."""
    chosen = Settings(**{"device": "cpu", "dataloader_workers": 0, **settings})
    return Job(fasta, folder, hub.resolve(str(model)), chosen, "", time.perf_counter()).run()


class SmallRun:
    """What the workflow's steps make of a FASTA file, one after the other, as far as they are called.

    Attributes:
        folder: all that they write.
        parts: the shards' folders.
        records: the table of records, of which the shards consist.
    """

    def __init__(self, folder: Path, count: int = 2):
        self.folder = folder
        self.parts = [folder / f"embed/{shard}" for shard in range(count)]
        self.records = folder / "shards/records.parquet"
        self.embeddings, self.index = folder / "embeddings.h5", folder / "index.parquet"

    def shard(self, model: Path, fasta: Path, reuse: Sequence[Path] = ()) -> None:
        family, _ = registry.recognise(hub.resolve(str(model)))
        records, folder, files = Sample([fasta], family.alphabet), self.folder / "shards", earlier.located(reuse)
        places = reused.places(files) if files else None
        shards.shard({None: records}, len(self.parts), folder, family.cost, alphabet=family.alphabet, reused=places)
        earlier.record(folder, earlier.common_attributes(files))

    def embed(self, model: Path, fasta: Path, reuse: Sequence[Path] = (), **settings: Any) -> None:
        self.shard(model, fasta, reuse)
        for shard, part in enumerate(self.parts):
            path = self.folder / f"shards/{shard}.fasta"
            assert embed(model, path, part, fitting=earlier.recorded(path.parent), **settings) == 0

    def check(self) -> pd.DataFrame:
        """The table of the shards."""
        return verify.check(self.parts, [self.records])

    def merge(self) -> None:
        merge(self.parts, [self.records], self.embeddings, self.index)

    def copy(self, folder: Path) -> "SmallRun":
        """Copies of the shards' folders; the table of records is the same."""
        shutil.copytree(self.folder / "embed", folder / "embed")
        copy = SmallRun(folder, len(self.parts))
        copy.records = self.records
        return copy
