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
from seqmill.outputs import balance, meta, partial
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.embedding_file import METADATA, MODULUS, Damaged, EmbeddingFile
from seqmill.outputs.expected import Expected
from seqmill.outputs.meta import Unusable
from seqmill.outputs.names import EMBEDDINGS
from seqmill.outputs.source import Block, Source
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
    own = dict.fromkeys(folders[-(len(folders) // len(records)) :])
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
    expected = Expected(records, len(folders) // len(records))
    metas: dict[Path, Meta] = {}
    unusable: dict[Path, str] = {}
    for number, folder in enumerate(folders):
        try:
            metas[folder] = found = meta.read(folder)
            meta.refuse_other_settings(folder, found, *next(iter(metas.items())))
            with _opened(folder / EMBEDDINGS) as file:
                if problem := differs(found, METADATA, file.metadata_checksum()):
                    raise Unusable(problem)
                expected.refuse_others(file, number)
                verify(file, found)
        except Unusable as problem:
            unusable[folder] = str(problem)
    remove_unusable(unusable, len(folders))
    return metas


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


def verify_values(file: EmbeddingFile, found: Meta) -> None:
    """Compare all values with their checksums.

    Raises:
        Unusable: they are missing, damaged or not finite.
    """
    source = Source(file)
    for name in found["datasets"]:
        if name not in file.extents:
            raise Unusable(f"embeddings.h5 is damaged ({name} is missing)")
        checksum = 0
        try:
            for block in source.blocks(name, np.arange(source.count)):
                checksum += block.checksum()
                if (bad := first_not_finite(block, file.extents[name].dataset)) is not None:
                    raise Unusable(not_finite(name, bad))
        except Damaged as error:
            raise Unusable(f"embeddings.h5 is damaged ({error})") from None
        if problem := differs(found, name, checksum):
            raise Unusable(problem)


def first_not_finite(block: Block, dataset: Dataset) -> int | None:
    """The first row of a block's sequences whose values have NaN or infinity among them; None for none."""

    def is_finite(content: np.ndarray) -> bool:
        return all_finite(content.view(dataset.dtype))

    if is_finite(block.content):
        return None
    places = zip(block.rows.tolist(), block.begins.tolist(), block.ends.tolist(), strict=True)
    return next((row for row, begin, end in places if not is_finite(block.content[begin:end])), None)


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
