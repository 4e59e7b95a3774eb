"""The attention ladder: FlashAttention-2 from flash-attn, from PyTorch, or PyTorch's standard attention.

Where kernels are compiled anyway, seqmill's own FlashAttention-2 is measured against the ladder's choice.
"""

import importlib
import importlib.metadata
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from seqmill.errors import UserError, first_line

log = logging.getLogger(__name__)

CHOICES = ("auto", "flash-attn", "torch", "triton", "sdpa")
# What `faster` times its kernels with.
TIMED_TOKENS, TIMED_REPEATS = 16_384, 5


class Group(NamedTuple):
    """Neighbouring sequences that standard attention computes as one dense batch.

    Attributes:
        span: the token slots of all of them.
        shape: (count, longest).
        slots: (count, longest) int64 on the device, the slots of each, beyond a sequence's end its last one again;
            None where all are equally long, so that a view of the span will do.
        mask: (count, 1, 1, longest) bool, which slots are the sequence's own; None likewise.
    """

    span: slice
    shape: tuple[int, int]
    slots: torch.Tensor | None
    mask: torch.Tensor | None


@dataclass(frozen=True)
class Packing:
    """Where the sequences of a packed batch lie, in the forms the kernels want.

    Attributes:
        cu_seqlens: (S + 1,) int32 on the device.
        max_seqlen: the longest sequence's tokens.
        tokens: (S,) tokens of each sequence, on the host.
    """

    cu_seqlens: torch.Tensor
    max_seqlen: int
    tokens: np.ndarray

    @cached_property
    def groups(self) -> list[Group]:
        """The dense batches of standard attention, made once for all layers."""
        device = self.cu_seqlens.device
        # A GPU wins by few launches and pads a little for that; a CPU wins by not padding.
        waste = 1.0 if device.type == "cpu" else 1.2
        starts = np.concatenate([[0], np.cumsum(self.tokens)])
        groups = []
        for first, last in _similar(self.tokens, waste):
            lengths = self.tokens[first:last]
            longest = int(lengths.max())
            slots = mask = None
            if lengths.min() < longest:
                within = np.arange(longest)
                slots = starts[first:last, None] + np.minimum(within, lengths[:, None] - 1)
                slots = torch.from_numpy(slots).to(device, non_blocking=True)
                own = (within < lengths[:, None])[:, None, None, :]
                mask = torch.from_numpy(own).to(device, non_blocking=True)
            span = slice(int(starts[first]), int(starts[last]))
            groups.append(Group(span, (last - first, longest), slots, mask))
        return groups


def _similar(tokens: np.ndarray, waste: float) -> list[tuple[int, int]]:
    """Cut sequences into stretches that padding to their longest makes at most `waste` times as large."""
    bounds, start = [], 0
    while start < len(tokens):
        longest = np.maximum.accumulate(tokens[start:])
        padded = longest * np.arange(1, len(longest) + 1)
        fits = padded <= waste * np.cumsum(tokens[start:])
        stop = start + (len(fits) if fits.all() else int(np.argmin(fits)))
        bounds.append((start, stop))
        start = stop
    return bounds


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
    for name in ("flash-attn", "torch") if requested == "auto" else (requested,):
        try:
            kernel = _flash(name, device, dtype)
            _try_out(kernel.attend, device, dtype, heads, head_dim)
        except Exception as error:  # a broken extension can fail in any way, and each means: not available
            reasons.append(f"{name}: {first_line(error)[:200]}")
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
        return Kernel(name, "PyTorch built-in", _torch_varlen())
    if name == "triton":
        return Kernel(name, "seqmill's Triton kernel", importlib.import_module("seqmill.kernels").attend)
    version = installed_flash_attn()
    if version is None:
        raise NotAvailable("flash-attn 2 is not installed")
    return Kernel(name, f"flash-attn {version}", _flash_attn())


def installed_flash_attn() -> str | None:
    """The version of flash-attn 2 that is installed, or None.

    Told by the distribution: flash-attn-4 installs into the same module name and has another interface.
    """
    try:
        version = importlib.metadata.version("flash-attn")
    except importlib.metadata.PackageNotFoundError:
        return None
    return version if version.startswith("2.") else None


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


def standard_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packing: Packing) -> torch.Tensor:
    """Scaled dot-product attention within each packed sequence: (T, heads, head_dim) to the same.

    Neighbours of similar length run as one dense batch.
    """
    output = torch.zeros_like(query)
    for span, shape, slots, mask in packing.groups:
        dense = (x[span].unflatten(0, shape) if slots is None else x[slots] for x in (query, key, value))
        q, k, v = (x.transpose(1, 2) for x in dense)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
        if slots is None:
            output[span].unflatten(0, shape).copy_(attended)
        else:
            # The slots beyond a sequence's end repeat its last query, so what is written there twice is the same.
            output[slots] = attended
    return output


def faster(
    one: Kernel, other: Kernel, device: torch.device, dtype: torch.dtype, heads: int, head_dim: int, length: int
) -> Kernel:
    """The faster of two kernels on this GPU, for sequences of so many tokens; logs how they compare."""
    count = max(TIMED_TOKENS // length, 1)
    cu_seqlens = torch.arange(count + 1, dtype=torch.int32, device=device) * length
    packing = Packing(cu_seqlens, length, np.full(count, length))
    qkv = torch.randn(count * length, 3, heads, head_dim, device=device, dtype=dtype)

    def seconds(kernel: Kernel) -> float:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        kernel.attend(*qkv.unbind(1), packing)
        start.record()
        for _ in range(TIMED_REPEATS):
            kernel.attend(*qkv.unbind(1), packing)
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / 1e3

    times = {kernel: seconds(kernel) for kernel in (one, other)}
    best, slower = sorted(times, key=times.__getitem__)
    log.info(
        "FlashAttention-2: enabled (%s, %.2f times as fast here as %s)",
        *(best.version, times[slower] / times[best], slower.version),
    )
    return best


def _try_out(attend: Attend, device: torch.device, dtype: torch.dtype, heads: int, head_dim: int) -> None:
    """Run two short sequences and compare with standard attention on the CPU: an import that works proves nothing."""
    lengths = np.array([37, 5])
    cu_seqlens = torch.tensor([0, 37, 42], dtype=torch.int32)
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn((42, 3, heads, head_dim), generator=generator).to(dtype)
    expected = standard_attention(*qkv.float().unbind(1), Packing(cu_seqlens, 37, lengths))
    found = attend(*qkv.to(device).unbind(1), Packing(cu_seqlens.to(device), 37, lengths)).float().cpu()
    error = (found - expected).norm() / expected.norm()
    if not error < 0.02:
        raise NotAvailable(f"it computes wrong results on this GPU, relative error {error:.2g}")
