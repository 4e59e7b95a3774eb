"""A model in a folder on this machine: its files, its config.json, and the record of them. Imports no torch."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from seqmill.errors import UserError, first_line
from seqmill.files import read_json, write_json

# Where weights are, the best first; the last can come without a config.json, or with one that says nothing of them.
WEIGHTS, WEIGHTS_ALONE = ("model*.safetensors", "pytorch_model*.bin"), ("*.pth", "data/weights/*.pth")
# ESMFold's config.json, the longest of those supported or refused by name, has some 5,000 bytes.
MAX_CONFIG_BYTES = 10**6


@dataclass(frozen=True)
class Weights:
    """A model in a folder on this machine.

    Attributes:
        name: hub id or folder, as in the configuration.
        revision: the hub commit, or None for a folder.
        folder: where the files are.
        files: SHA-256 of each weight file, by its path in the folder.
        checksum: SHA-256 over configuration, weights and tokenizer: what identifies the model, wherever it is stored.
        tokenizer: SHA-256 of each file that decides the tokens; none where the family alone does.
    """

    name: str
    revision: str | None
    folder: str
    files: dict[str, str]
    checksum: str
    tokenizer: dict[str, str] = field(default_factory=dict)

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
    has_config = (folder / "config.json").is_file()
    patterns = (*WEIGHTS, *WEIGHTS_ALONE) if has_config else WEIGHTS_ALONE
    for pattern in patterns:
        if files := sorted(folder.glob(pattern)):
            if odd := [path.name for path in files if not path.is_file()]:
                raise UserError(f"model {folder}: {odd[0]} is not a file, or a broken link; complete the folder")
            return files
    if not has_config:
        raise UserError(f"model {folder}: has no config.json; give a folder as transformers' save_pretrained writes it")
    raise UserError(f"model {folder}: has no weights (model.safetensors or pytorch_model.bin); complete the folder")


def found(folder: Path) -> Weights:
    """The weights in a folder that is still to be looked at: without checksums.

    Raises:
        UserError: see `weight_files`.
    """
    files = dict.fromkeys((path.relative_to(folder).as_posix() for path in weight_files(folder)), "")
    return Weights(str(folder), None, str(folder), files, "")


def read_config(weights: Weights) -> dict[str, Any]:
    """The content of config.json, with an empty model_type where it says nothing of it or where there is none.

    Raises:
        UserError: it is not a JSON object, or its model_type is not text.
    """
    if not (Path(weights.folder) / "config.json").exists():
        return {"model_type": ""}
    try:
        with (Path(weights.folder) / "config.json").open("rb") as handle:
            content = handle.read(MAX_CONFIG_BYTES + 1)
        if len(content) > MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {MAX_CONFIG_BYTES:,} bytes")
        config = json.loads(content)
        if not isinstance(config, dict):
            raise ValueError("it is not a JSON object")
        # Some copies of DNABERT's lack it.
        config["model_type"] = config.get("model_type") or ""
        if not isinstance(config["model_type"], str):
            raise ValueError("its model_type is not text")
        return config
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"model {weights.name}: its config.json cannot be used ({first_line(error)})") from None
