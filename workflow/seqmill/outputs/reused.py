"""The sequences of earlier results: where each is, and the files as sources of a merge."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from seqmill.errors import UserError, first_line
from seqmill.inputs.rounds import ELSEWHERE, REUSED_FROM
from seqmill.outputs import meta, verify
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.earlier import attributes_of, located, refuse_other_settings
from seqmill.outputs.embedding_file import METADATA, EmbeddingFile
from seqmill.outputs.names import INDEX, META
from seqmill.outputs.opening import opened
from seqmill.outputs.source import Source

COLUMNS = ["id", "length", "sequence_sha256"]
# What helps where an earlier result is no longer what it was when the shards were made.
ANEW = "put back what it was, or take it out of the list and run again (the workflow with --forcerun shard)"


def places(paths: Sequence[Path]) -> pd.DataFrame:
    """Where each distinct sequence of some earlier results is.

    Args:
        paths: their files; of a sequence that several have, the first counts.

    Returns:
        A row per distinct sequence, with its hash as the index: shard (ELSEWHERE), row and REUSED_FROM.

    Raises:
        UserError: one is damaged, or does not fit its index.
    """
    tables = []
    for path in paths:
        with opened(path) as file:
            hashes = sequence_hashes(file)
        table = pd.DataFrame({"shard": ELSEWHERE, "row": np.arange(len(hashes)), REUSED_FROM: str(path)}, index=hashes)
        tables.append(table[~table.index.duplicated()])
    found = pd.concat(tables)
    return found[~found.index.duplicated()]


def sources(records: pd.DataFrame, like: Source) -> list[Source]:
    """The earlier results that some records are taken from, in the order of their first records.

    Args:
        records: their hashes, rows and REUSED_FROM.
        like: a file of the run's own, whose model and settings they must have.

    Raises:
        UserError: one is not there, is damaged, was made with other settings, or has changed since the shards were made.
    """
    wanted, files = attributes_of(like), []
    for path, own in records.groupby(REUSED_FROM, sort=False):
        with verified(*located([path]), wanted, like.datasets) as file:
            files.append(Source(file))
            hashes, rows = sequence_hashes(file).to_numpy(), own["row"].to_numpy()
        if rows.max() >= len(hashes) or not np.array_equal(hashes[rows], own["sequence_sha256"].to_numpy()):
            raise UserError(f"reuse: {path}: holds other sequences than when the shards were made; {ANEW}")
    return files


def verified(path: Path, wanted: Mapping[str, Any], datasets: Sequence[Dataset]) -> EmbeddingFile:
    """The file of an earlier result, opened, with the settings and datasets of this run.

    A result of the command embed is compared with the checksums in its meta.json; merged results have none.

    Raises:
        UserError: it is damaged, or was made with other settings.
    """
    file = opened(path)
    found = attributes_of(file)
    refuse_other_settings(path, found, wanted, "this run")
    if {dataset.name: dataset for dataset in file.datasets} != {dataset.name: dataset for dataset in datasets}:
        raise UserError(f"reuse: {path}: holds other datasets than this run; take it out of the list")
    if (path.parent / META).exists():
        _compare_checksums(file, found)
    return file


def sequence_hashes(file: EmbeddingFile) -> pd.Series:
    """The SHA-256 of each row's sequence, from the index beside the file.

    Raises:
        UserError: the index is damaged, or another result's.
    """
    path = file.path.with_name(INDEX)
    try:
        if missing := [name for name in COLUMNS if name not in pq.read_schema(path).names]:
            raise UserError(f"reuse: {path}: has no column {missing[0]}; it is not an index as seqmill writes it")
        table = pd.read_parquet(path, columns=COLUMNS)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise UserError(f"reuse: {path}: cannot be read ({first_line(error)}); copy the result again") from None
    fits = np.array_equal(table["length"], file.lengths) and np.array_equal(table["id"].to_numpy(), file.ids())
    if not fits or table["sequence_sha256"].isna().any():
        raise UserError(
            f"reuse: {path}: lists other sequences than {file.path.name} beside it; put the two files of one result "
            "together"
        )
    return table["sequence_sha256"]


def _compare_checksums(file: EmbeddingFile, attributes: Mapping[str, Any]) -> None:
    try:
        found = meta.read(file.path.parent)
        if meta.differences(found, attributes):
            raise meta.Unusable(f"{META} beside it is of another result")
        if problem := verify.differs(found, METADATA, file.metadata_checksum()):
            raise meta.Unusable(problem)
        verify.verify_values(file, found)
    except meta.Unusable as problem:
        raise UserError(f"reuse: {file.path}: {problem}; {ANEW}") from None
