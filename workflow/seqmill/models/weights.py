"""A model in a folder on this machine: its files, its config.json, and the record of them. Imports no torch."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seqmill.errors import UserError, first_line
from seqmill.files import read_json, write_json

# ESMFold's config.json, the longest of those supported or refused by name, has some 5,000 bytes.
MAX_CONFIG_BYTES = 10**6


@dataclass(frozen=True)
class Weights:
    """A model in a folder on this machine.

    Attributes:
        name: hub id or folder, as in the configuration.
        revision: the hub commit, or None for a folder.
        folder: where the files are.
        files: SHA-256 of each weight file.
        checksum: SHA-256 over configuration and weights: what identifies the model, wherever it is stored.
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
            raise UserError(f"{path}: is not a record of weights as scripts/weights.py writes it ({error})") from None


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
                raise UserError(f"model {folder}: {odd[0]} is not a file, or a broken link; complete the folder")
            return files
    raise UserError(f"model {folder}: has no weights (model.safetensors or pytorch_model.bin); complete the folder")


def read_config(weights: Weights) -> dict[str, Any]:
    """The content of config.json.

    Raises:
        UserError: it is not a JSON object, or does not say of which type the model is.
    """
    try:
        with (Path(weights.folder) / "config.json").open("rb") as handle:
            content = handle.read(MAX_CONFIG_BYTES + 1)
        if len(content) > MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {MAX_CONFIG_BYTES:,} bytes")
        config = json.loads(content)
        if not isinstance(config.get("model_type"), str):
            raise ValueError("it has no model_type")
        return config
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"model {weights.name}: its config.json cannot be used ({first_line(error)})") from None
