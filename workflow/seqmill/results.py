"""The shards' folders: what ran out of memory, what does not fit together, and how the rest went."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd

from seqmill import checksums, partial, sums
from seqmill.errors import UserError
from seqmill.files import read_json, write_atomically
from seqmill.store import Damaged, EmbeddingFile

log = logging.getLogger(__name__)

GIB = 2**30
SCHEMAS = Path(__file__).resolve().parents[1] / "schemas"
META_SCHEMA, OOM_SCHEMA = SCHEMAS / "meta.schema.json", SCHEMAS / "oom.schema.json"
# What must be alike in all shards, and what it is called in a message.
FINGERPRINT = {
    "checksum": "model weights",
    "dtype": "dtype",
    "layers": "layers",
    "pooling": "pooling",
    "long": "treatment of long sequences",
}
AGAIN = "run again with --forcerun embed"


def collect_ooms(folders: list[Path], destination: Path) -> None:
    """Move the diagnoses of shards that ran out of memory to `destination` and remove their folders.

    Raises:
        UserError: there were any; the message is a table with the recommended batch sizes.
    """
    found = [folder for folder in folders if (folder / "oom.json").is_file()]
    if not found:
        return
    destination.mkdir(parents=True, exist_ok=True)
    rows, advice = [], {}
    for folder in found:
        content = _read_oom(folder)
        kept = destination / f"{folder.name}.{content['created'].replace(':', '')}.json"
        shutil.copy(folder / "oom.json", kept)
        rows.append(
            {
                "shard": folder.name,
                "batch_size": content["batch_size"],
                "longest": content["longest_sequence"],
                "done": f"{content['completed_share']:.0%}",
                "peak_GiB": round(content["peak_reserved_bytes"] / GIB, 2),
                "card_GiB": round(content["device"]["total_bytes"] / GIB, 2),
                "recommended": content["recommended_batch_size"] or "none fits",
                "diagnosis": str(kept),
            }
        )
        advice |= dict.fromkeys(content["recommendations"])
    # Only now: were this interrupted before, the next run would find the diagnoses again.
    for folder in found:
        shutil.rmtree(folder)
    sizes = [row["recommended"] for row in rows]
    if all(isinstance(size, int) for size in sizes):
        # One size must serve all shards that run again.
        smallest = f"set performance.batch_size to {min(sizes)} and run the same command again"
        advice = {smallest: None} | {line: None for line in advice if not line.startswith("set performance.batch_size")}
    table = pd.DataFrame(rows).to_string(index=False)
    hints = "\n".join(f"  -> {line}" for line in advice)
    raise UserError(
        f"{len(found)} of {len(folders)} shards ran out of memory:\n{table}\n{hints}\n"
        "The next run does exactly these shards again."
    )


def _read_oom(folder: Path) -> dict[str, Any]:
    path = folder / "oom.json"
    try:
        content = read_json(path)
        jsonschema.validate(content, read_json(OOM_SCHEMA))
    except (ValueError, jsonschema.ValidationError):
        raise UserError(
            f"{path}: is damaged or of another version; remove {folder} and run the same command again"
        ) from None
    return content


class Unusable(Exception):
    """A shard's folder holds no finished shard, or a damaged one: it has to be done again."""


def check(folders: list[Path], records: Path) -> pd.DataFrame:
    """One row per shard, after making sure that all are whole and were made alike.

    Everything is read and compared with its checksums. Damaged and incomplete folders are removed, so that the next
    run does exactly them again; what another model, input or version made is refused and left alone.

    Raises:
        UserError: a shard is missing, damaged, of other sequences, or made with another model or settings.
    """
    sums.verify(records)
    columns = ["sequence_sha256", "length", "shard", "row"]
    expected = pd.read_parquet(records, columns=columns).drop_duplicates("sequence_sha256")
    missing = sorted(set(expected["shard"]) - set(range(len(folders))))
    if missing:
        raise UserError(
            f"{records}: deals sequences to shard {missing[0]}, but {len(folders)} folders were given; give all"
        )
    metas: dict[Path, dict[str, Any]] = {}
    unusable: dict[Path, str] = {}
    for number, folder in enumerate(folders):
        try:
            metas[folder] = meta = read_meta(folder)
            first, reference = next(iter(metas.items()))
            _refuse_other_settings(folder, meta, first, reference)
            _verify(folder, meta, expected[expected["shard"] == number].sort_values("row"))
        except Unusable as problem:
            unusable[folder] = str(problem)
    if unusable:
        _remove(unusable, len(folders))
    return pd.DataFrame([_summarise(folder, metas[folder]) for folder in folders])


def _remove(unusable: dict[Path, str], count: int) -> None:
    for folder in unusable:
        shutil.rmtree(folder, ignore_errors=True)
    problems = "; ".join(f"{folder}: {problem}" for folder, problem in unusable.items())
    raise UserError(
        f"{len(unusable)} of {count} shards are missing or damaged and have been removed ({problems}); "
        "run the same command again, which does exactly these"
    )


def read_meta(folder: Path) -> dict[str, Any]:
    """A finished shard's `meta.json`.

    Raises:
        Unusable: it is missing or damaged.
        UserError: another version of seqmill wrote it.
    """
    path = folder / "meta.json"
    try:
        meta = read_json(path)
    except FileNotFoundError:
        raise Unusable("there is no meta.json") from None
    except (OSError, ValueError):
        raise Unusable("meta.json is damaged") from None
    if not isinstance(meta, dict) or ("seal" in meta and not checksums.is_intact(meta)):
        raise Unusable("meta.json is damaged")
    try:
        jsonschema.validate(meta, read_json(META_SCHEMA))
    except jsonschema.ValidationError:
        raise UserError(f"{path}: was written by another version of seqmill; {AGAIN}") from None
    return meta


def _refuse_other_settings(folder: Path, meta: dict[str, Any], first: Path, reference: dict[str, Any]) -> None:
    differing = [name for key, name in FINGERPRINT.items() if meta[key] != reference[key]]
    if differing or meta["fingerprint"] != reference["fingerprint"]:
        what = ", ".join(differing) or "settings"
        raise UserError(f"{folder} was made with other {what} than {first}; {AGAIN}")


def _verify(folder: Path, meta: dict[str, Any], expected: pd.DataFrame) -> None:
    """Compare the embeddings with what was computed, to the byte, and with what the shard consists of.

    Raises:
        Unusable: they are missing or damaged.
        UserError: they are of other sequences.
    """
    with _opened(folder / "embeddings.h5") as file:
        _compare(meta, checksums.AROUND, checksums.around(file))
        hashes, lengths = expected["sequence_sha256"].to_numpy(), expected["length"].to_numpy()
        if not (np.array_equal(file.ids(), hashes) and np.array_equal(file.lengths, lengths)):
            raise UserError(f"{file.path}: holds other sequences than this shard of the input; {AGAIN}")
        for name in meta["datasets"]:
            found = 0
            for rows, values in file.blocks(name, np.arange(len(file.lengths))):
                found += checksums.of_rows(file, name, rows, values)
                if not _all_finite(values):
                    raise Unusable(f"embeddings.h5 is damaged ({name} of rows {rows[0]} to {rows[-1]} is not finite)")
            _compare(meta, name, found % checksums.MODULUS)


def _all_finite(values: np.ndarray) -> bool:
    if values.dtype != np.float16:
        return bool(np.isfinite(values).all())
    # Infinity and NaN have all bits of the exponent set; NumPy's isfinite takes several times as long to see that.
    exponent = np.uint16(0x7C00)
    return not values.size or bool((values.view(np.uint16) & exponent).max() < exponent)


def _compare(meta: dict[str, Any], name: str, found: int) -> None:
    if meta["checksums"][name] != f"{found:016x}":
        raise Unusable(f"embeddings.h5 is damaged (its checksum of {name} is not the one in meta.json)")


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


def _summarise(folder: Path, meta: dict[str, Any]) -> dict[str, Any]:
    peak = meta["memory"]["peak_reserved_bytes"]
    return {
        "shard": folder.name,
        "sequences": meta["sequences"],
        "residues": meta["residues"],
        "longest": meta["longest_sequence"],
        "device": meta["device"],
        "dtype": meta["dtype"],
        "attention": meta["settings"]["attention"],
        "batch_size": meta["settings"]["batch_size"],
        "resumed_after": meta["resumed_after"],
        "out_of_memory": len(meta["out_of_memory"]),
        "residues_per_s": meta["residues_per_s"],
        "utilisation": meta["model_flop_utilisation"],
        "packing": meta["packing_efficiency"],
        "peak_GiB": None if peak is None else round(peak / GIB, 2),
    }


def remove_partials(folders: list[Path]) -> None:
    """Remove what was kept to go on with after an interruption, once all shards are finished and sound."""
    for folder in folders:
        partial.remove(partial.folder_for(folder))


def write_summary(summary: pd.DataFrame, path: Path) -> None:
    with write_atomically(path) as temporary:
        summary.to_csv(temporary, sep="\t", index=False)
