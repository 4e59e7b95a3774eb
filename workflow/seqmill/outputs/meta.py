"""What is recorded of a result: its fingerprint, the file's attributes, and meta.json, the last file of a shard."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqmill.errors import UserError
from seqmill.files import read_json, write_json
from seqmill.inputs.windows import FULL
from seqmill.outputs.names import META
from seqmill.outputs.schemas import validator

log = logging.getLogger(__name__)

AGAIN = "run again with --forcerun embed"
# What the fingerprint is taken of, and what each is called in a message.
FINGERPRINT = {
    "checksum": "model weights",
    "dtype": "dtype",
    "layers": "layers",
    "pooling": "pooling",
    "long": "treatment of long sequences",
    # Only where one was asked for.
    "storage": "dtype of what is stored",
}
# The entry of meta.json that holds the checksum of the others.
CHECKSUM = "seal"


class Unusable(Exception):
    """A shard's folder holds no finished shard, or a damaged one: it has to be done again."""


def fingerprint(
    checksum: str,
    dtype: str,
    layers: Sequence[int],
    pooling: Sequence[str],
    long: str = FULL,
    storage: str | None = None,
) -> dict[str, Any]:
    """Everything besides the sequences that decides the result's bytes, with a SHA-256 over it.

    Args:
        checksum: of the model, see `models.weights.Weights`.
        long: what becomes of long sequences, see `windows.Treatment.name`.
        storage: the dtype of what is stored, where one was asked for.
    """
    values = (checksum, dtype, list(layers), sorted(pooling), long, storage)
    content = {name: value for name, value in zip(FINGERPRINT, values, strict=True) if value is not None}
    return {**content, "fingerprint": _sha256(content)}


def attributes(
    model: str, revision: str | None, attention: str, versions: dict[str, str], fingerprint: dict[str, Any]
) -> dict[str, Any]:
    """Root attributes of `embeddings.h5`."""
    return {
        "model": model,
        "revision": revision or "",
        "attention": attention,
        "versions": json.dumps(versions),
        **fingerprint,
    }


def write(folder: Path, content: dict[str, Any]) -> None:
    """Write `meta.json` with its checksum."""
    write_json(folder / META, with_checksum(content))


def with_checksum(content: dict[str, Any]) -> dict[str, Any]:
    """The content with the checksum of all of it."""
    return {**content, CHECKSUM: _sha256(content)}


def read(folder: Path) -> dict[str, Any]:
    """A finished shard's `meta.json`.

    Raises:
        Unusable: it is missing or damaged.
        UserError: another version of seqmill wrote it.
    """
    path = folder / META
    try:
        meta = read_json(path)
    except FileNotFoundError:
        raise Unusable(f"there is no {META}") from None
    except (OSError, ValueError):
        raise Unusable(f"{META} is damaged") from None
    if not isinstance(meta, dict) or (CHECKSUM in meta and not _is_intact(meta)):
        raise Unusable(f"{META} is damaged")
    if not validator("meta").is_valid(meta):
        raise UserError(f"{path}: was written by another version of seqmill; {AGAIN}")
    return meta


def refuse_other_settings(folder: Path, meta: dict[str, Any], first: Path, reference: dict[str, Any]) -> None:
    """Compare a shard with the first one.

    Raises:
        UserError: it was made with another model or other settings.
    """
    if differing := differences(meta, reference):
        raise UserError(f"{folder} was made with other {', '.join(differing)} than {first}; {AGAIN}")


def differences(meta: dict[str, Any], reference: dict[str, Any]) -> list[str]:
    """What the fingerprints of two results differ in, in words; nothing where they are the same."""
    differing = [name for key, name in FINGERPRINT.items() if meta.get(key) != reference.get(key)]
    return differing or (["settings"] if meta["fingerprint"] != reference["fingerprint"] else [])


def _is_intact(meta: dict[str, Any]) -> bool:
    return meta[CHECKSUM] == _sha256({name: value for name, value in meta.items() if name != CHECKSUM})


def _sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
