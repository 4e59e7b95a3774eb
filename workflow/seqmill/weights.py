"""Where a model's weights lie, and proof that they are the ones meant."""

import hashlib
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from seqmill.errors import UserError
from seqmill.files import read_json, sha256, write_json

log = logging.getLogger(__name__)

# The revisions, and the SHA-256 of their weight files, that were checked against fair-esm's originals.
KNOWN = {
    "facebook/esm2_t6_8M_UR50D": (
        "c731040fcd8d73dceaa04b0a8e6329b345b0f5df",
        {"model.safetensors": "24c5fa474c48f3b754b86efe752d5f189d2bcd88190fa2270fc92b2ef3034189"},
    ),
    "facebook/esm2_t33_650M_UR50D": (
        "08e4846e537177426273712802403f7ba8261b6c",
        {"model.safetensors": "a08adabb949fa67ad3c14b509d04fd60368b35007b0095e3358f81200c4f4db0"},
    ),
    "facebook/esm2_t36_3B_UR50D": (
        "476b639933c8baad5ad09a60ac1a87f987b656fc",
        {
            "pytorch_model-00001-of-00002.bin": "0f971f11c449d21422aa982b791619c10351972992c735f4c3cd43fe09790412",
            "pytorch_model-00002-of-00002.bin": "7560b46fc383c691fb74b915b7d4bcef40d3df181447f16ba4b298845e308d0c",
        },
    ),
}

TEXT_FILES = ["*.json", "vocab.txt"]


@dataclass(frozen=True)
class Weights:
    """A model that lies in a folder on this machine.

    Attributes:
        name: hub id or folder, as in the configuration.
        revision: the hub commit, or None for a folder.
        folder: where the files are.
        files: SHA-256 of each weight file.
        checksum: SHA-256 over configuration and weights: what identifies the model, wherever it lies.
    """

    name: str
    revision: str | None
    folder: str
    files: dict[str, str]
    checksum: str

    def save(self, path: Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "Weights":
        try:
            return cls(**read_json(path))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path}: is no record of weights as scripts/weights.py writes it ({error})") from None


def resolve(name: str, revision: str | None = None) -> Weights:
    """Find the model in a folder, the hub's cache or the hub, and take the checksums of its weights.

    Raises:
        UserError: no such folder or hub id, no network, files missing, or a checksum that is not the known one.
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
        folder = _download(name, revision or KNOWN.get(name, ("main", {}))[0])
        commit = folder.name
    try:
        files = {path.name: sha256(path) for path in weight_files(folder)}
        config = sha256(folder / "config.json")
    except OSError as error:
        raise UserError(
            f"model {name}: {error.filename} cannot be read ({error.strerror}); complete the folder"
        ) from None
    _verify(name, commit, files)
    checksum = hashlib.sha256(config.encode())
    for digest in files.values():
        checksum.update(digest.encode())
    return Weights(name, commit, str(folder.resolve()), files, checksum.hexdigest())


def weight_files(folder: Path) -> list[Path]:
    """The checkpoint's files in a model folder, safetensors before PyTorch's .bin, sorted by name.

    Raises:
        UserError: no config.json or no weights, or something else under their names.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"model {folder}: has no config.json; give a folder as transformers' save_pretrained writes it")
    for pattern in ("model*.safetensors", "pytorch_model*.bin"):
        if files := sorted(folder.glob(pattern)):
            if odd := [path.name for path in files if not path.is_file()]:
                raise UserError(f"model {folder}: {odd[0]} is no file, or a link to none; complete the folder")
            return files
    raise UserError(f"model {folder}: has no weights (model.safetensors or pytorch_model.bin); complete the folder")


def _is_hub_id(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "~"))


def _download(name: str, revision: str) -> Path:
    """The snapshot folder of a hub model: safetensors where it has them, else .bin."""
    # Only here: embed jobs get a folder and need not wait for the hub's client to be imported.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*TEXT_FILES, "model*.safetensors"]))
        if not list(folder.glob("model*.safetensors")):
            snapshot_download(name, revision=revision, allow_patterns=[*TEXT_FILES, "pytorch_model*.bin"])
        return folder
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(f"model {name}: there is no such folder and no such model on the hub; check the name") from None
    except RevisionNotFoundError:
        raise UserError(f"model {name}: the hub has no revision {revision}; check model.revision") from None
    except (LocalEntryNotFoundError, OSError) as error:
        log.debug("hub: %s", error)
        raise UserError(
            f"model {name}: is not in this machine's cache and the hub cannot be reached; where there is a network run "
            f"'hf download {name} --revision {revision} --local-dir esm2', copy the folder esm2 here "
            "and set model.name to its path and model.revision to null"
        ) from None


def _verify(name: str, commit: str | None, files: dict[str, str]) -> None:
    revision, expected = KNOWN.get(name, (None, {}))
    if commit is None or commit != revision:
        return
    for file, digest in files.items():
        if digest != expected.get(file, digest):
            raise UserError(f"model {name}: {file} has SHA-256 {digest}, not {expected[file]}; delete it and run again")
