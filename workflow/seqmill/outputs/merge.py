"""The merged result: one HDF5 file in input order, and its index.

Each shard is read once and in order, one is open at a time, and what is in memory is bounded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqmill.errors import UserError
from seqmill.files import write_atomically
from seqmill.outputs import reused, verify
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.layout import check_space, lay_out
from seqmill.outputs.merging import index as merged_index
from seqmill.outputs.merging.copying import copy
from seqmill.outputs.merging.places import Places
from seqmill.outputs.merging.records import Records
from seqmill.outputs.source import Source


def merge(
    folders: list[Path], records: Sequence[Path], embeddings: Path, index: Path, sample: str | None = None
) -> str:
    """Write the merged file and the index; returns a line for people.

    Values are verified while they are copied, but for shards of which other samples have a part.

    Args:
        folders, records: see `verify.inspect`; of the sample's round and of all before.
        sample: whose records to take; None for a run without samples.

    Raises:
        UserError: a shard, or an earlier result that is reused, is missing, damaged, of another input, or made with
            another model or settings.
    """
    files: list[Source] = []
    metas = verify.inspect(folders, records, lambda file, _: files.append(Source(file)))
    table = Records(records[-1], sample)
    if table.reused is not None:
        files += reused.sources(table.reused, files[0])
    places = Places(files, table.sources(len(folders) // len(records), len(folders)), table.rows)
    datasets = files[0].datasets
    # Without datasets per token nobody asks for them.
    token_counts = places.token_counts() if any(dataset.is_per_token for dataset in datasets) else table.lengths
    needed = sum(int(dataset.rows(token_counts).sum()) * dataset.row_bytes for dataset in datasets)
    check_space(embeddings.parent, needed)
    with write_atomically(embeddings) as temporary:
        lay_out(temporary, table.ids(), table.lengths, token_counts, datasets, _attributes(files))
        problems = copy(places, token_counts, temporary, list(metas.values()))
        for number, problem in problems.items():
            if number >= len(folders):
                raise UserError(f"reuse: {files[number].path}: {problem}; {reused.ANEW}")
        verify.remove_unusable({folders[shard]: problem for shard, problem in problems.items()}, len(folders))
        described = _described(temporary, datasets)
    merged_index.write(index, records[-1], sample, described)
    about = f"{table.duplicates:,} of them duplicates"
    if table.reused is not None:
        about += f", {len(table.reused):,} from earlier results"
    return f"{len(table):,} records ({about}) in {embeddings} and {index}"


def _attributes(files: Sequence[Source]) -> dict[str, Any]:
    """Those of the first, with the attention kernels of all."""
    kernels = {kernel for file in files for kernel in file.attributes["attention"].split(", ")}
    return {**files[0].attributes, "attention": ", ".join(sorted(kernels))}


def _described(path: Path, datasets: Sequence[Dataset]) -> dict[str, np.ndarray]:
    """(records,) each, what was done to each sequence, by the datasets that say so."""
    names = [dataset.name for dataset in datasets if not (dataset.is_computed or dataset.is_per_token)]
    with EmbeddingFile(path) as file:
        return {name: np.array(file.values(name)[:, 0]) for name in names}
