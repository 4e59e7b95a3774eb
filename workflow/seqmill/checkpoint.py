"""A checkpoint on disk: its configuration, and its tensors one at a time.

Read without transformers, which takes longer to import than most checkpoints take to load.
"""

import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from seqmill.errors import UserError, first_line
from seqmill.memory import is_oom
from seqmill.weights import Weights


def read_config(weights: Weights) -> dict[str, Any]:
    """The content of config.json.

    Raises:
        UserError: it is no JSON object, or does not say of which type the model is.
    """
    try:
        config = json.loads((Path(weights.folder) / "config.json").read_text())
        if not isinstance(config.get("model_type"), str):
            raise ValueError("it has no model_type")
        return config
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"model {weights.name}: its config.json cannot be used ({first_line(error)})") from None


class Checkpoint:
    """The tensors of a checkpoint's files (.safetensors, or .bin read as weights only), by name.

    A tensor is read when it is taken, so that no more than one is in memory besides the model.

    Args:
        prefix: dropped from names that begin with it: checkpoints with a head have the encoder under `esm.`.

    Attributes:
        left: names of the tensors not taken yet.

    Raises:
        UserError: a file is damaged or no checkpoint.
    """

    def __init__(self, weights: Weights, prefix: str, device: torch.device):
        self.name, self.device = weights.name, device
        self.readers: dict[str, Callable[[], torch.Tensor]] = {}
        for file in weights.files:
            for key, reader in self._guarded(partial(_readers, Path(weights.folder) / file)).items():
                self.readers[_current(key.removeprefix(prefix))] = reader
        self.left = set(self.readers)

    def take(self, key: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """One tensor, on the device.

        Raises:
            UserError: it is missing or of another shape.
        """
        if key not in self.readers:
            raise UserError(f"model {self.name}: the checkpoint lacks the tensor {key}; get it again")
        self.left.discard(key)
        tensor = self._guarded(self.readers[key])
        if tensor.shape != shape:
            raise self.misfit(key)
        # Converted where it goes to: a GPU takes no time for it.
        return tensor.to(self.device).to(dtype)

    def misfit(self, key: str) -> UserError:
        return UserError(f"model {self.name}: the weights do not fit config.json, {key} for one; get both again")

    def _guarded(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except Exception as error:  # safetensors, pickle and zip files each fail in their own ways
            if is_oom(error):
                raise
            raise UserError(
                f"model {self.name}: the weights cannot be loaded ({first_line(error)}); get them again"
            ) from None


def _current(key: str) -> str:
    """The name of today for a norm's parameters: some versions of transformers write TensorFlow's."""
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        key = key.replace(old, new)
    return key


def _readers(path: Path) -> dict[str, Callable[[], torch.Tensor]]:
    if path.suffix == ".safetensors":
        file = safe_open(path, framework="pt")
        return {key: partial(file.get_tensor, key) for key in file.keys()}  # noqa: SIM118 -- it is no mapping
    # Files older than PyTorch 1.6 are no zip archives and cannot be mapped.
    tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    return {key: partial(tensors.__getitem__, key) for key in tensors}
