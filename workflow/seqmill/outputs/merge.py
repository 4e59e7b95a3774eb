"""The merged result: one HDF5 file in input order, and its index."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd

from seqmill.errors import UserError
from seqmill.files import write_atomically
from seqmill.inputs import rounds
from seqmill.inputs.rounds import REUSED_FROM
from seqmill.inputs.shards import TEXT
from seqmill.outputs import reused, verify
from seqmill.outputs.datasets import EMBEDDED, WINDOWS
from seqmill.outputs.embedding_file import EmbeddingFile, cut, sequence_checksum
from seqmill.outputs.layout import check_space, lay_out
from seqmill.outputs.names import EMBEDDINGS

INDEX_COLUMNS = ["id", "length", "sequence_sha256", "shard", "row", "duplicate_of", "residues_replaced"]
# Version 0.1 had no such columns in its table of records.
INDEX_COLUMNS += ["description", "renamed_from"]
# Where there are samples: the round whose shard it is.
INDEX_COLUMNS += ["round"]
# Where long sequences were not embedded whole.
INDEX_COLUMNS += [WINDOWS, EMBEDDED]
# Where earlier results are reused: the one that the sequence is taken from, in which `row` counts; then `shard` is -1.
INDEX_COLUMNS += [REUSED_FROM]


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
    metas = verify.inspect(folders, records)
    table = _read_records(records[-1], sample)
    with ExitStack() as stack:
        files = [stack.enter_context(EmbeddingFile(folder / EMBEDDINGS)) for folder in folders]
        earlier = reused.sources(table, files[0])
        files += [stack.enter_context(file) for file in earlier]
        attributes = dict(files[0].attributes)
        kernels = {kernel for file in files for kernel in file.attributes["attention"].split(", ")}
        attributes["attention"] = ", ".join(sorted(kernels))
        sources = Sources(files, table, len(folders) // len(records), [file.path for file in earlier])
        datasets, token_counts = files[0].datasets, sources.token_counts()
        check_space(
            embeddings.parent, sum(int(dataset.rows(token_counts).sum()) * dataset.row_bytes for dataset in datasets)
        )
        temporary = stack.enter_context(write_atomically(embeddings))
        lay_out(temporary, table["id"], table["length"].to_numpy(), token_counts, datasets, attributes)
        with EmbeddingFile(temporary, writable=True) as merged:
            problems = sources.copy(merged, [metas[folder] for folder in folders])
            for dataset in datasets:
                if not (dataset.is_computed or dataset.is_per_token):
                    # What was done to each sequence.
                    table[dataset.name] = merged.values(dataset.name)[:, 0]
        for source, problem in problems.items():
            if source >= len(folders):
                raise UserError(f"reuse: {files[source].path}: {problem}; {reused.ANEW}")
        verify.remove_unusable({folders[shard]: problem for shard, problem in problems.items()}, len(folders))
    columns = table[[name for name in INDEX_COLUMNS if name in table]]
    columns = columns.astype({name: TEXT for name in ("duplicate_of", "renamed_from") if name in columns})
    with write_atomically(index) as temporary:
        columns.to_parquet(temporary, index=False)
    duplicates = int(table["duplicate_of"].notna().sum())
    about = f"{duplicates:,} of them duplicates"
    if REUSED_FROM in table:
        about += f", {int(table[REUSED_FROM].notna().sum()):,} from earlier results"
    return f"{len(table):,} records ({about}) in {embeddings} and {index}"


def _read_records(path: Path, sample: str | None) -> pd.DataFrame:
    table = rounds.read_records(path)
    if sample is None:
        return table
    own = table[table["sample"] == sample]
    if own.empty:
        raise UserError(f"{path}: has no sample {sample}; its samples are {', '.join(table['sample'].unique())}")
    return own.reset_index(drop=True)


class Sources:
    """Where the values of each record come from: record i is `files[shards[i]]`'s sequence `rows[i]`.

    Args:
        shards: of each round of samples.
        earlier: the paths of the last `files`, which are earlier results.

    Attributes:
        first: (records,) whether a record is the first with its sequence.
    """

    def __init__(self, files: list[EmbeddingFile], records: pd.DataFrame, shards: int, earlier: Sequence[Path] = ()):
        self.files = files
        self.shards, self.rows = records["shard"].to_numpy(), records["row"].to_numpy()
        if "round" in records:
            self.shards = self.shards + (records["round"].to_numpy() - 1) * shards
        for number, path in enumerate(earlier, start=len(files) - len(earlier)):
            self.shards = np.where(reused.taken_from(records, path), number, self.shards)
        self.first = records["duplicate_of"].isna().to_numpy()

    def token_counts(self) -> np.ndarray:
        """(records,) content tokens of each."""
        counts = np.zeros(len(self.rows), np.int64)
        for shard, file in enumerate(self.files):
            own = self.shards == shard
            counts[own] = file.token_counts[self.rows[own]]
        return counts

    def copy(self, merged: EmbeddingFile, metas: list[verify.Meta]) -> dict[int, str]:
        """Fill the merged file; compare what was read with the checksums of the shards that were read as a whole.

        Returns:
            Shards that are damaged, by number, and how.
        """
        problems: dict[int, str] = {}
        for name in merged.extents:
            checksums = [0] * len(self.files)
            for start, values, sizes in self._blocks(merged, name):
                self._add_checksums(start, values, sizes, checksums)
                if (bad := verify.first_not_finite(values, sizes)) is not None:
                    shard, row = self.shards[start + bad], self.rows[start + bad]
                    problems.setdefault(int(shard), verify.not_finite(name, row))
                merged.write(np.arange(start, start + len(sizes)), {name: values})
            for shard, meta in enumerate(metas):
                if self._is_whole(shard) and (problem := verify.differs(meta, name, checksums[shard])):
                    problems.setdefault(shard, problem)
        return problems

    def _is_whole(self, shard: int) -> bool:
        """Whether all sequences of a shard are among the records."""
        return int((self.first & (self.shards == shard)).sum()) == len(self.files[shard].lengths)

    def _blocks(self, merged: EmbeddingFile, name: str) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """First record, values and rows per record of stretches of the merged dataset."""
        values, starts = [file.values(name) for file in self.files], [file.starts(name) for file in self.files]
        target = merged.starts(name)
        for start, stop in cut(merged.sequence_bytes(name, np.arange(len(self.rows)))):
            shards, rows = self.shards[start:stop], self.rows[start:stop]
            if merged.extents[name].dataset.is_per_token:
                places = zip(shards.tolist(), rows.tolist(), strict=True)
                block = np.concatenate([values[s][starts[s][r] : starts[s][r + 1]] for s, r in places])
            else:
                block = np.empty((stop - start, values[0].shape[1]), values[0].dtype)
                for shard in np.unique(shards):
                    block[shards == shard] = values[shard][rows[shards == shard]]
            yield start, block, np.diff(target[start : stop + 1])

    def _add_checksums(self, start: int, values: np.ndarray, sizes: np.ndarray, checksums: list[int]) -> None:
        """Add the checksum of each record of a block to its shard's; duplicates, copied from one place, count once."""
        content, row_bytes = memoryview(values.reshape(-1).view(np.uint8)), values.shape[1] * values.dtype.itemsize
        at = slice(start, start + len(sizes))
        columns = (self.shards[at], self.rows[at], self.first[at], np.cumsum(sizes) * row_bytes)
        begin = 0
        for shard, row, first, end in zip(*(column.tolist() for column in columns), strict=True):
            if first:
                checksums[shard] += sequence_checksum(content[begin:end], row)
            begin = end
