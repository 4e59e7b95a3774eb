"""A checkpoint on disk: its tensors, one at a time.

Read without transformers, which takes longer to import than most checkpoints take to load.
"""

import io
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from torch import nn

from seqmill.errors import UserError, first_line, is_oom
from seqmill.models.weights import Weights

# Integers, and floats of 8 bits, are quantised weights, which mean nothing without their scales.
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


Loaded = TypeVar("Loaded", bound=nn.Module)


@dataclass(frozen=True)
class Reader:
    """A tensor that is not read yet."""

    shape: tuple[int, ...]
    read: Callable[[], torch.Tensor]


class Checkpoint:
    """The tensors of a checkpoint's files (.safetensors, or .bin read as weights only), by name.

    A tensor is read when it is taken, so that no more than one is in memory besides the model.

    Attributes:
        left: names of the tensors not taken yet.

    Raises:
        UserError: a file is damaged or not a checkpoint, or would run code when it is loaded.
    """

    def __init__(self, weights: Weights, device: torch.device):
        self.name, self.device = weights.name, device
        self.readers: dict[str, Reader] = {}
        for file in weights.files:
            for key, reader in self._guarded(partial(_readers, Path(weights.folder) / file)).items():
                self.readers[_renamed(key)] = reader
        self.left = set(self.readers)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all tensors, by name."""
        return {key: reader.shape for key, reader in self.readers.items()}

    def drop_prefix(self, prefix: str) -> None:
        """Drop a prefix from the names that begin with it."""
        self.rename(lambda key: key.removeprefix(prefix))

    def rename(self, new_name: Callable[[str], str]) -> None:
        """Give every tensor another name."""
        self.readers = {new_name(key): reader for key, reader in self.readers.items()}
        self.left = set(self.readers)

    def take(self, key: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """One tensor, on the device.

        Raises:
            UserError: it is missing, of another shape or quantised.
        """
        if key not in self.readers:
            raise UserError(f"model {self.name}: the checkpoint lacks the tensor {key}; get it again")
        self.left.discard(key)
        tensor = self._guarded(self.readers[key].read)
        if tensor.shape != shape:
            raise self.mismatch(key)
        if tensor.dtype not in DTYPES:
            raise UserError(
                f"model {self.name}: the tensor {key} is of type {tensor.dtype}; get weights that are not quantised"
            )
        # Converted where it goes to: a GPU takes no time for it.
        return tensor.to(self.device).to(dtype)

    def take_joined(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, table: Mapping[str, tuple[str, ...]]
    ) -> torch.Tensor:
        """A parameter of ours: the checkpoint's tensors that it consists of, end to end along their first dimension.

        Args:
            name: ours, such as `layers.3.qkv.weight`.
            table: our modules to the checkpoint's, with * for the number of the layer.
        """
        module, kind = name.rsplit(".", 1)
        parts = table[re.sub(r"\d+", "*", module)]
        number = next(iter(re.findall(r"\d+", module)), "")
        part_shape = (shape[0] // len(parts), *shape[1:])
        taken = [self.take(f"{part.replace('*', number)}.{kind}", part_shape, dtype) for part in parts]
        return taken[0] if len(taken) == 1 else torch.cat(taken)

    def complete(
        self,
        model: Loaded,
        state: Mapping[str, torch.Tensor],
        dtype: torch.dtype,
        table: Mapping[str, tuple[str, ...]],
        of_a_layer: Callable[[str], bool],
    ) -> Loaded:
        """A model made on the meta device, with its tensors, on the checkpoint's device and for inference only.

        Args:
            state: tensors that are no copies of the checkpoint's, by our names; the others are taken.
            table: see `take_joined`.
            of_a_layer: whether a name of the checkpoint's is of a layer's tensor; none of these may be left.

        Raises:
            UserError: as `take`, or a tensor belongs to a layer beyond the model's.
        """
        shapes = {name: tuple(empty.shape) for name, empty in model.state_dict().items()}
        taken = {name: self.take_joined(name, shapes[name], dtype, table) for name in shapes if name not in state}
        if beyond := [key for key in self.left if of_a_layer(key)]:
            raise self.mismatch(min(beyond))
        model.load_state_dict({**state, **taken}, strict=True, assign=True)
        return model.to(self.device).eval().requires_grad_(False)

    def mismatch(self, key: str) -> UserError:
        return UserError(f"model {self.name}: the weights do not fit config.json, {key} for one; get both again")

    def _guarded(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except Exception as error:  # safetensors, pickle and zip files each fail in their own ways
            if is_oom(error):
                raise
            # PyTorch's own message advises to load it nonetheless.
            if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
                raise UserError(
                    f"model {self.name}: its weights are damaged, or hold more than weights, which can run code, and were not "
                    "loaded; get the model as safetensors"
                ) from None
            raise UserError(
                f"model {self.name}: the weights cannot be loaded ({first_line(error)}); get them again"
            ) from None


def tensor_shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    """The names of a checkpoint's tensors and their shapes; none of them is read.

    Raises:
        UserError: as `Checkpoint`.
    """
    return Checkpoint(weights, torch.device("cpu")).shapes()


def _renamed(key: str) -> str:
    """Today's name of a norm's parameters: some versions of transformers write TensorFlow's."""
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        key = key.replace(old, new)
    return key


def _readers(path: Path) -> dict[str, Reader]:
    if path.suffix == ".safetensors":
        file = safe_open(path, framework="pt")
        keys = [key for key in file.keys() if not _is_extra_state(key)]  # noqa: SIM118 -- it is not a mapping
        return {key: Reader(tuple(file.get_slice(key).get_shape()), partial(file.get_tensor, key)) for key in keys}
    # Files older than PyTorch 1.6 are not zip archives and cannot be mapped.
    archive = zipfile.is_zipfile(path)
    if archive:
        with zipfile.ZipFile(path) as entries:
            # PyTorch never compresses; what is compressed could expand to more than memory holds.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.infolist()):
                raise ValueError("the archive is compressed")
    # Bytes in memory, which run nothing: `_is_extra_state` knows what for.
    with torch.serialization.safe_globals([io.BytesIO]):
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    if not isinstance(tensors, dict):
        raise ValueError("the file holds something else than named tensors")
    tensors = {key: value for key, value in tensors.items() if not _is_extra_state(key)}
    if not all(map(_is_named_tensor, tensors.items())):
        raise ValueError("the file holds something else than named tensors")
    return {key: Reader(tuple(tensor.shape), partial(tensors.__getitem__, key)) for key, tensor in tensors.items()}


def _is_extra_state(key: Any) -> bool:
    """What modules of NVIDIA's Transformer Engine add to their weights: how they scaled numbers of 8 bits, if they did."""
    return isinstance(key, str) and key.endswith("_extra_state")


def _is_named_tensor(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], torch.Tensor) and not item[1].is_meta
