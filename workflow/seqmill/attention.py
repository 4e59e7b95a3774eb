"""The attention ladder: FlashAttention-2 from flash-attn, from PyTorch, or PyTorch's standard attention."""

import importlib
import importlib.metadata
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from seqmill.errors import UserError

log = logging.getLogger(__name__)

CHOICES = ("auto", "flash-attn", "torch", "sdpa")


@dataclass(frozen=True)
class Packing:
    """Where the sequences of a packed batch lie, in the forms the kernels want.

    Attributes:
        cu_seqlens: (S + 1,) int32 on the device.
        max_seqlen: at least the longest sequence's tokens; rounded up, so that few values occur.
        tokens: tokens of each sequence, on the host (standard attention needs them there).
    """

    cu_seqlens: torch.Tensor
    max_seqlen: int
    tokens: Sequence[int]


# (query, key, value, packing) -> output, all (T, heads, head_dim). Slots behind the last sequence (the filler)
# hold no defined values.
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Packing], torch.Tensor]


@dataclass(frozen=True)
class Kernel:
    """An attention implementation: `name` is how the configuration asks for it, `version` what really runs."""

    name: str
    version: str
    attend: Attend

    @property
    def is_flash(self) -> bool:
        return self.name != "sdpa"


def choose(requested: str, device: torch.device, dtype: torch.dtype, heads: int, head_dim: int) -> Kernel:
    """The best kernel that works on this device, or the requested one; logs the choice in one line.

    Raises:
        UserError: the kernel asked for by name does not work here.
    """
    if requested == "sdpa":
        log.info("standard attention: PyTorch SDPA, as requested")
        return _standard()
    reasons = []
    for name in ("flash-attn", "torch"):
        if requested not in ("auto", name):
            continue
        try:
            kernel = _flash(name, device, dtype)
            _try_out(kernel.attend, device, dtype, heads, head_dim)
        except Exception as error:  # a broken extension can fail in any way, and each means: not available
            reasons.append(f"{name}: {_first_line(error)}")
            continue
        log.info("FlashAttention-2: enabled (%s)", kernel.version)
        return kernel
    # One reason that holds for both rungs is told once.
    reason = "; ".join(reasons) if len({r.split(": ", 1)[1] for r in reasons}) > 1 else reasons[0].split(": ", 1)[1]
    if requested != "auto":
        raise UserError(f"attention '{requested}' does not work here ({reason}); use attention auto")
    log.warning("FlashAttention-2 not available (%s): using standard attention", reason)
    return _standard()


class NotAvailable(Exception):
    """Why a kernel cannot run here, in words for the log."""


def _flash(name: str, device: torch.device, dtype: torch.dtype) -> Kernel:
    if device.type != "cuda":
        raise NotAvailable(f"no CUDA GPU in use, running on {device.type}")
    if dtype not in (torch.float16, torch.bfloat16):
        raise NotAvailable(f"it has no {str(dtype).removeprefix('torch.')} kernel")
    if torch.cuda.get_device_capability(device) < (8, 0):
        raise NotAvailable(f"it needs an Ampere or newer GPU, this is {torch.cuda.get_device_name(device)}")
    if name == "torch":
        attend = _torch_varlen()
        return Kernel(name, "PyTorch built-in", attend)
    version = _flash_attn_version()
    return Kernel(name, f"flash-attn {version}", _flash_attn())


def _flash_attn_version() -> str:
    # By distribution: flash-attn-4 installs into the same module name and is another interface.
    try:
        version = importlib.metadata.version("flash-attn")
    except importlib.metadata.PackageNotFoundError:
        raise NotAvailable("the package is not installed") from None
    if not version.startswith("2."):
        raise NotAvailable(f"version {version} is installed, not 2.x")
    return version


def _flash_attn() -> Attend:
    varlen = importlib.import_module("flash_attn").flash_attn_varlen_func

    def attend(query, key, value, packing):
        cu_seqlens, longest = packing.cu_seqlens, packing.max_seqlen
        return varlen(query, key, value, cu_seqlens, cu_seqlens, longest, longest)

    return attend


def _torch_varlen() -> Attend:
    try:
        module = importlib.import_module("torch.nn.attention.varlen")
    except ImportError:
        raise NotAvailable(f"PyTorch {torch.__version__} has no varlen_attn") from None
    # Newer PyTorch may choose cuDNN on some GPUs; what the log and the files name must be what ran.
    if hasattr(module, "_should_use_cudnn"):
        module._should_use_cudnn = lambda *_: False

    def attend(query, key, value, packing):
        cu_seqlens, longest = packing.cu_seqlens, packing.max_seqlen
        return module.varlen_attn(query, key, value, cu_seqlens, cu_seqlens, longest, longest)

    return attend


def _standard() -> Kernel:
    return Kernel("sdpa", "PyTorch SDPA", standard_attention)


def standard_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packing: Packing
) -> torch.Tensor:
    """Scaled dot-product attention within each packed sequence: (T, heads, head_dim) to the same.

    Neighbours of equal length run as one dense batch, so no mask and no padding are needed.
    """
    output = torch.zeros_like(query)
    for start, count, length in _equal_runs(packing.tokens):
        stop = start + count * length
        q, k, v = (x[start:stop].unflatten(0, (count, length)).transpose(1, 2) for x in (query, key, value))
        output[start:stop] = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1)
    return output


def _equal_runs(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """(start, count, length) of each run of equal lengths: [7, 5, 5] gives [(0, 1, 7), (7, 2, 5)]."""
    runs: list[tuple[int, int, int]] = []
    for length in lengths:
        if runs and runs[-1][2] == length:
            start, count, _ = runs[-1]
            runs[-1] = (start, count + 1, length)
        else:
            start = runs[-1][0] + runs[-1][1] * runs[-1][2] if runs else 0
            runs.append((start, 1, length))
    return runs


def _try_out(attend: Attend, device: torch.device, dtype: torch.dtype, heads: int, head_dim: int) -> None:
    """Run two short sequences and compare with standard attention: an import that works proves nothing."""
    lengths = [37, 5]
    generator = torch.Generator(device).manual_seed(0)
    shape = (3, sum(lengths), heads, head_dim)
    query, key, value = torch.randn(shape, generator=generator, device=device).to(dtype)
    packing = Packing(torch.tensor([0, 37, 42], dtype=torch.int32, device=device), max(lengths), lengths)
    expected = standard_attention(query, key, value, packing).float()
    error = (attend(query, key, value, packing).float() - expected).norm() / expected.norm()
    if not error < 0.02:
        raise NotAvailable(f"it computes wrong results on this GPU, relative error {error:.2g}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
