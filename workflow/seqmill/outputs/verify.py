"""Finished shards, verified: complete, undamaged, of the input's sequences, and made with the same model and settings."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seqmill.errors import UserError
from seqmill.files import write_atomically
from seqmill.inputs.rounds import ELSEWHERE, distinct
from seqmill.outputs import balance, meta, partial
from seqmill.outputs.embedding_file import METADATA, MODULUS, Damaged, EmbeddingFile
from seqmill.outputs.meta import AGAIN, Unusable
from seqmill.outputs.names import EMBEDDINGS
from seqmill.units import GIB

Meta = dict[str, Any]


def check(folders: list[Path], records: Sequence[Path]) -> pd.DataFrame:
    """One row per shard, after making sure that all are complete and were made with the same settings.

    Everything is read and compared with its checksums. Damaged and incomplete folders are removed, so that the next
    run repeats exactly those; what another model, input or version made is refused and left alone.

    Args:
        folders, records: see `inspect`. Of several rounds the values of the last one are verified, and its shards are
            the rows; the earlier ones were checked when they were made.

    Raises:
        UserError: a shard is missing, damaged, of other sequences, or made with another model or settings.
    """
    own = folders[-(len(folders) // len(records)) :]
    metas = inspect(folders, records, lambda file, found: file.path.parent in own and verify_values(file, found))
    summary = pd.DataFrame([_summarise(folder, metas[folder]) for folder in own])
    return summary.join(balance.seconds([metas[folder] for folder in own]))


def inspect(
    folders: list[Path], records: Sequence[Path], verify: Callable[[EmbeddingFile, Meta], object] = lambda *_: None
) -> dict[Path, Meta]:
    """The shards' meta.json, after comparing everything but the values with checksums and with the input.

    Args:
        folders: those of all shards, round after round, as many for each.
        records: records.parquet of the input, or of each round of samples up to the one in question.
        verify: what else to hold each file to; raises Unusable.

    Raises:
        UserError: see `check`.
    """
    expected = _expected(records, len(folders) // len(records)).sort_values(["shard", "row"])
    of_shard = dict(iter(expected.groupby("shard")))
    metas: dict[Path, Meta] = {}
    unusable: dict[Path, str] = {}
    for number, folder in enumerate(folders):
        try:
            metas[folder] = found = meta.read(folder)
            meta.refuse_other_settings(folder, found, *next(iter(metas.items())))
            with _opened(folder / EMBEDDINGS) as file:
                if problem := differs(found, METADATA, file.metadata_checksum()):
                    raise Unusable(problem)
                _refuse_other_sequences(file, of_shard.get(number, expected[:0]))
                verify(file, found)
        except Unusable as problem:
            unusable[folder] = str(problem)
    remove_unusable(unusable, len(folders))
    return metas


def _expected(records: Sequence[Path], shards: int) -> pd.DataFrame:
    """The distinct sequences in the shards of all rounds, with `shard` counted on from round to round.

    Args:
        shards: of each round.

    Raises:
        UserError: the records are damaged or name more shards.
    """
    tables = []
    for number, path in enumerate(records):
        table = distinct(path, number + 1)
        if (largest := table["shard"].max()) >= shards:
            raise UserError(
                f"{path}: assigns sequences to shard {largest}, but {shards} folders were given for it; give all"
            )
        own = table[table["shard"] != ELSEWHERE]
        tables.append(own.assign(shard=own["shard"] + number * shards))
    return pd.concat(tables)


def remove_unusable(unusable: dict[Path, str], count: int) -> None:
    """Remove folders that cannot be used, with the reason for each, if there are any.

    Raises:
        UserError: there are some.
    """
    if not unusable:
        return
    for folder in unusable:
        shutil.rmtree(folder, ignore_errors=True)
    problems = "; ".join(f"{folder}: {problem}" for folder, problem in unusable.items())
    raise UserError(
        f"{len(unusable)} of {count} shards are missing or damaged and have been removed ({problems}); "
        "run the same command again, which repeats exactly these"
    )


def _refuse_other_sequences(file: EmbeddingFile, expected: pd.DataFrame) -> None:
    hashes, lengths = expected["sequence_sha256"].to_numpy(), expected["length"].to_numpy()
    if not (np.array_equal(file.ids(), hashes) and np.array_equal(file.lengths, lengths)):
        raise UserError(f"{file.path}: holds other sequences than this shard of the input; {AGAIN}")


def verify_values(file: EmbeddingFile, found: Meta) -> None:
    """Compare all values with their checksums.

    Raises:
        Unusable: they are missing, damaged or not finite.
    """
    for name in found["datasets"]:
        if name not in file.extents:
            raise Unusable(f"embeddings.h5 is damaged ({name} is missing)")
        checksum, sizes = 0, np.diff(file.starts(name))
        for rows, values in file.blocks(name, np.arange(len(file.lengths))):
            checksum += file.checksum_of(name, rows, values)
            if (bad := first_not_finite(values, sizes[rows])) is not None:
                raise Unusable(not_finite(name, rows[bad]))
        if problem := differs(found, name, checksum):
            raise Unusable(problem)


def first_not_finite(values: np.ndarray, sizes: np.ndarray) -> int | None:
    """Which of some sequences, with so many rows each in `values`, is the first with NaN or infinity; None for none."""
    if all_finite(values):
        return None
    row = np.flatnonzero(~np.isfinite(values).all(axis=1))[0]
    return int(np.searchsorted(np.cumsum(sizes), row, side="right"))


def all_finite(values: np.ndarray) -> bool:
    """Whether there is neither NaN nor infinity among values of half or single precision."""
    if values.dtype != np.float16:
        return bool(np.isfinite(values).all())
    # Infinity and NaN have all bits of the exponent set; NumPy's isfinite takes several times as long to see that.
    exponent = np.uint16(0x7C00)
    return not values.size or bool((values.view(np.uint16) & exponent).max() < exponent)


def not_finite(name: str, row: int) -> str:
    """What is wrong with a shard that holds NaN or infinity."""
    return f"embeddings.h5 is damaged ({name} of row {row} is not finite)"


def differs(found: Meta, name: str, checksum: int) -> str | None:
    """What is wrong with a shard whose checksum is not the one in its meta.json; None where it is."""
    if found["checksums"].get(name) == f"{checksum % MODULUS:016x}":
        return None
    what = "its metadata" if name == METADATA else name
    return f"embeddings.h5 is damaged (the checksum of {what} does not match meta.json)"


@contextmanager
def _opened(path: Path) -> Iterator[EmbeddingFile]:
    try:
        file = EmbeddingFile(path)
    except FileNotFoundError:
        raise Unusable(f"there is no {path.name}") from None
    except Damaged as error:
        raise Unusable(f"{path.name} is damaged ({error})") from None
    with file:
        yield file


def _summarise(folder: Path, found: Meta) -> dict[str, Any]:
    peak = found["memory"]["peak_reserved_bytes"]
    return {
        "shard": folder.name,
        "sequences": found["sequences"],
        "residues": found["residues"],
        "longest": found["longest_sequence"],
        "device": found["device"],
        "dtype": found["dtype"],
        "attention": found["settings"]["attention"],
        "batch_size": found["settings"]["batch_size"],
        "resumed_after": found["resumed_after"],
        "out_of_memory": len(found["out_of_memory"]),
        "residues_per_s": found["residues_per_s"],
        "utilisation": found["model_flop_utilisation"],
        "packing": found["packing_efficiency"],
        "peak_GiB": None if peak is None else round(peak / GIB, 2),
    }


def shown(summary: pd.DataFrame) -> str:
    """The summary for a terminal, without the columns that say nothing on this machine."""
    return summary.dropna(axis="columns", how="all").to_string(index=False)


def remove_partials(folders: list[Path]) -> None:
    """Remove the partial results of shards that are all finished and valid."""
    for folder in folders:
        partial.remove(partial.folder_for(folder))


def write_summary(summary: pd.DataFrame, path: Path) -> None:
    with write_atomically(path) as temporary:
        summary.to_csv(temporary, sep="\t", index=False)
