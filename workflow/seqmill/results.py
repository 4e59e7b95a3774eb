"""The shards' folders: what ran out of memory, what does not fit together, and how the rest went."""

import logging
import shutil
from pathlib import Path
from typing import Any

import h5py
import jsonschema
import numpy as np
import pandas as pd

from seqmill.errors import UserError
from seqmill.files import read_json, write_atomically

log = logging.getLogger(__name__)

GIB = 2**30
META_SCHEMA = Path(__file__).resolve().parents[1] / "schemas/meta.schema.json"
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
        content = read_json(folder / "oom.json")
        kept = destination / f"{folder.name}.{content['created'].replace(':', '')}.json"
        shutil.copy(folder / "oom.json", kept)
        rows.append(
            {
                "shard": folder.name,
                "batch_size": content["batch_size"],
                "longest": content["longest_sequence"],
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


def check(folders: list[Path], records: Path) -> pd.DataFrame:
    """One row per shard, after making sure that all are whole and were made alike.

    Raises:
        UserError: a shard is missing, incomplete, of other sequences, or made with another model or settings.
    """
    expected = pd.read_parquet(records, columns=["sequence_sha256", "shard", "row"]).drop_duplicates("sequence_sha256")
    missing = sorted(set(expected["shard"]) - set(range(len(folders))))
    if missing:
        raise UserError(
            f"{records}: deals sequences to shard {missing[0]}, but {len(folders)} folders were given; give all"
        )
    rows = []
    reference: dict[str, Any] = {}
    for number, folder in enumerate(folders):
        meta = read_meta(folder)
        reference = reference or meta
        differing = [name for key, name in FINGERPRINT.items() if meta[key] != reference[key]]
        if differing or meta["fingerprint"] != reference["fingerprint"]:
            what = ", ".join(differing) or "settings"
            raise UserError(f"{folder} was made with other {what} than {folders[0]}; {AGAIN}")
        hashes = expected[expected["shard"] == number].sort_values("row")["sequence_sha256"].to_numpy()
        _check_embeddings(folder, meta, hashes)
        rows.append(_summarise(folder, meta))
    return pd.DataFrame(rows)


def read_meta(folder: Path) -> dict[str, Any]:
    """A finished shard's `meta.json`.

    Raises:
        UserError: the folder holds no finished shard.
    """
    path = folder / "meta.json"
    try:
        meta = read_json(path)
        jsonschema.validate(meta, read_json(META_SCHEMA))
    except FileNotFoundError:
        raise UserError(f"{folder}: holds no finished shard (no meta.json); remove the folder and run again") from None
    except (ValueError, jsonschema.ValidationError):
        raise UserError(f"{path}: is damaged or of another version; remove the folder and run again") from None
    return meta


def _check_embeddings(folder: Path, meta: dict[str, Any], hashes: np.ndarray) -> None:
    path = folder / "embeddings.h5"
    try:
        with h5py.File(path) as file:
            ids = file["ids"].asstr()[:]
            fingerprint = file.attrs["fingerprint"]
            missing = set(meta["datasets"]) - set(file)
    except (OSError, KeyError) as error:
        raise UserError(f"{path}: is missing or damaged ({error}); remove {folder} and run again") from None
    if missing:
        raise UserError(
            f"{path}: is missing or damaged (no {', '.join(sorted(missing))}); remove {folder} and run again"
        )
    if fingerprint != meta["fingerprint"]:
        raise UserError(
            f"{path}: was made with other settings than {folder}/meta.json says; remove {folder} and run again"
        )
    if not np.array_equal(ids, hashes):
        raise UserError(f"{path}: holds other sequences than this shard of the input; {AGAIN}")


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
        "residues_per_s": meta["residues_per_s"],
        "utilisation": meta["model_flop_utilisation"],
        "packing": meta["packing_efficiency"],
        "peak_GiB": None if peak is None else round(peak / GIB, 2),
    }


def write_summary(summary: pd.DataFrame, path: Path) -> None:
    with write_atomically(path) as temporary:
        summary.to_csv(temporary, sep="\t", index=False)
