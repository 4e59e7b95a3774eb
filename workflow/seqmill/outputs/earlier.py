"""Earlier results, whose sequences a run need not compute again: finding them, and whether their settings fit.

An earlier result is an `embeddings.h5` with its `index.parquet` beside it, of the workflow or of the command embed.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqmill.errors import UserError
from seqmill.files import read_json, write_json
from seqmill.outputs import meta
from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.names import INDEX
from seqmill.outputs.opening import find, opened, plain
from seqmill.outputs.source import Source

# Beside the shards of a run: the attributes that results which are reused have, and the run's own must have.
RECORD = "reused.json"


def located(paths: Sequence[Path | str]) -> list[Path]:
    """The embeddings.h5 of earlier results, each of which is given as that file or as its folder.

    Raises:
        UserError: there is none, or no index.parquet beside it.
    """
    return list(dict.fromkeys(_located(Path(path)) for path in paths))


def _located(path: Path) -> Path:
    if not path.exists():
        raise UserError(
            f"reuse: there is no file or folder {path}; take it out of the list if nothing needs it any more"
        )
    file = find(path) if path.is_dir() else path
    if not file.with_name(INDEX).exists():
        raise UserError(
            f"reuse: {file}: has no {INDEX} beside it, which says whose sequences its rows are; copy it there, too"
        )
    return file


def refuse_own(path: Path, own: Sequence[Path]) -> None:
    """Refuse to reuse what is about to be written.

    Args:
        own: the files that are.

    Raises:
        UserError: `path` is among them.
    """
    if os.path.realpath(path) in map(os.path.realpath, own):
        raise UserError(
            f"reuse: {path}: is what this run writes itself; rename the folder first, and give its new name"
        )


def attributes(path: Path) -> dict[str, Any]:
    """What an earlier result is known by, as meta.json has it: model, dtype, layers, pooling, fingerprint and so on.

    Raises:
        UserError: it is no result, or a damaged one.
    """
    with opened(path) as file:
        return attributes_of(file)


def attributes_of(file: EmbeddingFile | Source) -> dict[str, Any]:
    found = {name: plain(value) for name, value in file.attributes.items()}
    if "fingerprint" not in found:
        raise UserError(f"reuse: {file.path}: does not say what it was made with; it is not as seqmill writes it")
    return found | {"path": str(file.path)}


def common_attributes(paths: Sequence[Path], rounds: Sequence[Path] = ()) -> dict[str, Any] | None:
    """The attributes that earlier results have in common; None where there are none.

    Args:
        rounds: the folders of shards of earlier rounds of samples, which may have reused others.

    Raises:
        UserError: they were made with different settings.
    """
    known = [(folder / RECORD, found) for folder in rounds if (found := recorded(folder))]
    known += [(path, attributes(path)) for path in paths]
    for path, found in known[1:]:
        refuse_other_settings(path, found, known[0][1], str(known[0][0]))
    return known[0][1] if known else None


def refuse_other_settings(path: Path | str, found: Mapping[str, Any], wanted: Mapping[str, Any], who: str) -> None:
    """Compare an earlier result with another one, or with what a run would make.

    Args:
        found, wanted: attributes, with the fingerprint.
        who: what `wanted` is of, for the message.

    Raises:
        UserError: it was made with another model or other settings.
    """
    if differing := meta.differences(found, wanted):
        raise UserError(
            f"reuse: {path} was made with other {', '.join(differing)} than {who}; use the same settings, or take it "
            "out of the list"
        )


def record(folder: Path, found: Mapping[str, Any] | None) -> None:
    """Record beside shards which attributes their results must have; None where there is nothing to fit."""
    if found is None:
        (folder / RECORD).unlink(missing_ok=True)
    else:
        write_json(folder / RECORD, found)


def recorded(folder: Path) -> dict[str, Any] | None:
    """What `record` wrote beside some shards.

    Raises:
        UserError: it is damaged.
    """
    path = folder / RECORD
    try:
        return dict(read_json(path)) if path.exists() else None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run again with --forcerun shard") from None
