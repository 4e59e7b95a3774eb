"""Finding a model in a folder, the hub's cache or the hub, and proof that its weights are the ones meant."""

import difflib
import hashlib
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from seqmill.errors import UserError
from seqmill.files import sha256
from seqmill.models import registry
from seqmill.models.weights import Weights, found

log = logging.getLogger(__name__)


def resolve(name: str, revision: str | None = None) -> Weights:
    """Find the model in a folder, the hub's cache or the hub, and take the checksums of its weights.

    Raises:
        UserError: no such folder or hub id, no network, files missing, or a checksum that is not the expected one.
    """
    folder = Path(name)
    if folder.is_dir():
        if revision is not None:
            raise UserError(f"model.revision is set, but {name} is a folder, which has none; set it to null")
        commit = None
    # A hub id's first part is seldom a folder here, a misspelt path's is.
    elif not _is_hub_id(name) or folder.parent.is_dir():
        raise UserError(
            f"model {name}: there is no such folder; give a folder with config.json and weights, or a hub id"
        )
    else:
        tested = registry.known(name)
        folder = _download(name, revision or (tested.revision if tested else "main"))
        commit = folder.name
    candidate = replace(found(folder), name=name)
    family, _ = registry.recognise(candidate)
    config = _digests(name, folder, ["config.json"])
    files = _digests(name, folder, candidate.files)
    _verify(name, commit, files)
    tokenizer = _digests(name, folder, family.tokenizer_files)
    checksum = hashlib.sha256()
    for digest in [*config.values(), *files.values(), *tokenizer.values()]:
        checksum.update(digest.encode())
    return Weights(name, commit, str(folder.resolve()), files, checksum.hexdigest(), tokenizer)


def _digests(name: str, folder: Path, files: Iterable[str]) -> dict[str, str]:
    """SHA-256 of those of some files that a model folder has."""
    try:
        return {file: sha256(folder / file) for file in files if (folder / file).exists()}
    except OSError as error:
        raise UserError(
            f"model {name}: {error.filename} cannot be read ({error.strerror}); complete the folder"
        ) from None


def _is_hub_id(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "~"))


def _download(name: str, revision: str) -> Path:
    """The snapshot folder of a hub model: safetensors where it has them, else .bin or .pth."""
    # Only here: embed jobs get a folder and need not wait for the hub's client to be imported.
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    text_files = registry.text_files()
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*text_files, "model*.safetensors"]))
        if not list(folder.glob("model*.safetensors")):
            others = ["pytorch_model*.bin", "data/weights/*.pth"]
            snapshot_download(name, revision=revision, allow_patterns=[*text_files, *others])
        return folder
    except (RepositoryNotFoundError, HFValidationError):
        advice = f"did you mean {meant}?" if (meant := _likely(name)) else "check the name"
        raise UserError(f"model {name}: there is no such folder and no such model on the hub; {advice}") from None
    except RevisionNotFoundError:
        raise UserError(f"model {name}: the hub has no revision {revision}; check model.revision") from None
    except (LocalEntryNotFoundError, OSError, httpx.HTTPError) as error:
        log.debug("hub: %s", error)
        if meant := _likely(name):
            raise UserError(
                f"model {name}: is not in this machine's cache and the hub cannot be reached; did you mean {meant}?"
            ) from None
        raise UserError(
            f"model {name}: is not in this machine's cache and the hub cannot be reached; where there is a network run "
            f"'hf download {name} --revision {revision} --local-dir model', copy the folder model here "
            "and set model.name to its path and model.revision to null"
        ) from None


def _likely(name: str) -> str | None:
    """The published model that a mistyped hub id is nearly the name of; None for one that is published or far from all."""
    published = registry.hub_ids()
    close = difflib.get_close_matches(name, published, 1, cutoff=0.95)
    return close[0] if close and name not in published else None


def _verify(name: str, commit: str | None, files: dict[str, str]) -> None:
    """Compare the checksums of a tested commit with those found."""
    known = registry.known(name)
    if known is None or commit != known.revision:
        return
    for file, digest in files.items():
        expected = known.files.get(file, digest)
        if digest != expected:
            raise UserError(f"model {name}: {file} has SHA-256 {digest}, not {expected}; delete it and run again")
