"""Earlier results in one job: the sequences that they hold are copied and not computed."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from seqmill.engine.task import Task
from seqmill.errors import UserError
from seqmill.inputs.sequences import Sequences
from seqmill.outputs import earlier
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.embedding_file import EmbeddingFile, cut
from seqmill.outputs.names import EMBEDDINGS
from seqmill.outputs.partial import Partial
from seqmill.settings import Settings

log = logging.getLogger(__name__)


class Reuse:
    """The earlier results that a job may take from; none where the settings name none.

    Args:
        paths: see `earlier.located`.
        folder: the job's own.

    Attributes:
        places: sequence hash to the number of a file and the row in it.
        attributes: of the earlier results.

    Raises:
        UserError: one cannot be used, or is the job's own.
    """

    def __init__(self, paths: Sequence[str], folder: Path):
        self.paths = earlier.located(paths)
        for path in self.paths:
            earlier.refuse_own(path, [folder / EMBEDDINGS])
        self.attributes = earlier.common_attributes(self.paths)
        self.places: dict[str, tuple[int, int]] = {}
        if self.paths:
            # Only here: it takes pandas, for which other jobs need not wait.
            from seqmill.inputs.rounds import REUSED_FROM
            from seqmill.outputs import reused

            table, numbers = reused.places(self.paths), {str(path): n for n, path in enumerate(self.paths)}
            found = zip(table.index, table[REUSED_FROM].map(numbers), table["row"], strict=True)
            self.places = {name: (number, row) for name, number, row in found}

    def fit(self, settings: Settings) -> Settings:
        """The settings of the job, held to those of the earlier results."""
        return replace(settings, fitting=self.attributes) if self.paths else settings

    def kernels(self, attention: str) -> str:
        """The attention kernels behind a result, as merged results name them."""
        if not self.paths:
            return attention
        return ", ".join(sorted({*attention.split(", "), *self.attributes["attention"].split(", ")}))

    def origins(self, sequences: Sequences) -> list[str | None] | None:
        """Which earlier file each distinct sequence is from, in the order of computing; None where none are named."""
        if not self.paths:
            return None
        found = (self.places.get(name) for name in sequences.hashes())
        return [None if place is None else str(self.paths[place[0]]) for place in found]

    def copy(self, task: Task, partial: Partial) -> None:
        """Write the sequences that earlier results hold, which come first, but for those that are written already.

        Raises:
            UserError: an earlier result is damaged, or holds other datasets.
        """
        known, done = task.sequences.known, partial.state.done
        if done >= known:
            return
        from seqmill.outputs import reused

        log.info("taking %s of %s sequences from earlier results", f"{known:,}", f"{task.sequences.distinct:,}")
        places = [self.places[name] for name in task.sequences.hashes()[:known]]
        with ExitStack() as stack:
            files = {
                number: stack.enter_context(reused.verified(self.paths[number], task.fingerprint, task.datasets))
                for number in {number for number, _ in places[done:]}
            }
            row_bytes = [self._row_bytes(files[number], row) for number, row in places[done:]]
            for first, last in cut(np.array(row_bytes)):
                part = [(files[number], row) for number, row in places[done + first : done + last]]
                values = {dataset.name: _read(part, dataset) for dataset in task.computed}
                partial.write(last - first, values, task.known)

    @staticmethod
    def _row_bytes(file: EmbeddingFile, row: int) -> int:
        tokens = int(file.token_counts[row])
        return sum(dataset.row_bytes * (tokens if dataset.is_per_token else 1) for dataset in file.datasets)


def _read(places: list[tuple[EmbeddingFile, int]], dataset: Dataset) -> np.ndarray:
    """The values of some sequences in one dataset, one after the other.

    Raises:
        UserError: some are not finite.
    """
    parts: list[Any] = []
    for file, row in places:
        starts = file.starts(dataset.name)
        values = file.read(dataset, int(starts[row]), int(starts[row + 1]))
        if not np.isfinite(values).all():
            raise UserError(
                f"reuse: {file.path}: is damaged ({dataset.name} of row {row} is not finite); copy it again"
            )
        parts.append(values)
    return np.concatenate(parts)
