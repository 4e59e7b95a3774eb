"""Choosing an attention kernel: FlashAttention-2 from PyTorch, from flash-attn, or PyTorch's standard attention.

Where kernels are compiled anyway, seqmill's own FlashAttention-2 is measured against that choice; where the scores have
a bias, it is among those that are chosen from.
"""

import importlib
import importlib.metadata
import logging

import numpy as np
import torch

from seqmill.errors import UserError, first_line
from seqmill.kernels import biases, sdpa
from seqmill.kernels.interface import Attend, Kernel, NotAvailable, check_result
from seqmill.kernels.needs import AttentionNeeds
from seqmill.kernels.packing import Packing
from seqmill.kernels.timing import gpu_seconds

log = logging.getLogger(__name__)

# What can be asked for by name.
NAMES = ("flash-attn", "torch", "triton", "sdpa")
# What auto takes the first of that works. PyTorch's kernel is that of flash-attn, which is as fast and costs seconds at its
# first call. A bias PyTorch's lacks, and standard attention would read a number per query and key of it from memory.
IN_ORDER, IN_ORDER_WITH_BIAS = ("torch", "flash-attn"), ("triton", "flash-attn")
# What `faster` times its kernels with.
TIMED_TOKENS, TIMED_REPEATS = 16_384, 5


def choose(requested: str, needs: AttentionNeeds, device: torch.device, dtype: torch.dtype) -> Kernel:
    """The best kernel that works on this device, or the requested one; logs the choice in one line.

    Raises:
        UserError: the kernel asked for by name does not work here.
    """
    if requested == "sdpa":
        log.info("standard attention: PyTorch SDPA, as requested")
        return _standard(needs)
    reasons = []
    in_order = IN_ORDER if needs.bias is None else IN_ORDER_WITH_BIAS
    for name in in_order if requested == "auto" else (requested,):
        try:
            kernel = tried(name, needs, device, dtype)
        except Exception as error:  # a broken extension can fail in any way, and each means: not available
            reasons.append(f"{name}: {first_line(error)[:200]}")
            continue
        log.info("FlashAttention-2: enabled (%s)", kernel.version)
        return kernel
    # One reason that holds for all is given once.
    reason = "; ".join(reasons) if len({r.split(": ", 1)[1] for r in reasons}) > 1 else reasons[0].split(": ", 1)[1]
    if requested != "auto":
        raise UserError(f"attention '{requested}' does not work here ({reason}); use attention auto")
    log.warning("FlashAttention-2 not available (%s): using standard attention", reason)
    return _standard(needs)


def tried(name: str, needs: AttentionNeeds, device: torch.device, dtype: torch.dtype) -> Kernel:
    """The kernel of that name, after two short sequences came out as standard attention on the CPU has them.

    Raises:
        NotAvailable: it has no such bias or dtype, or computes something else here; other exceptions: it cannot be
            imported or compiled.
    """
    kernel = _flash(name, device, dtype)
    _try_out(kernel, needs, device, dtype)
    return kernel


def _standard(needs: AttentionNeeds) -> Kernel:
    _check_bias(sdpa.KERNEL, needs)
    return sdpa.KERNEL


def _check_bias(kernel: Kernel, needs: AttentionNeeds) -> None:
    if needs.bias not in kernel.biases:
        raise NotAvailable(f"{kernel.version} has no attention bias of the kind {needs.bias}")


def _flash(name: str, device: torch.device, dtype: torch.dtype) -> Kernel:
    if device.type != "cuda":
        raise NotAvailable(f"no CUDA GPU in use, running on {device.type}")
    if dtype not in (torch.float16, torch.bfloat16):
        raise NotAvailable(f"it has no {str(dtype).removeprefix('torch.')} kernel")
    if torch.cuda.get_device_capability(device) < (8, 0):
        raise NotAvailable(f"it needs an Ampere or newer GPU, this is {torch.cuda.get_device_name(device)}")
    if name == "torch":
        return Kernel(name, "PyTorch built-in", _torch_flash)
    if name == "triton":
        # Only here: Triton comes with PyTorch for NVIDIA GPUs under Linux, and with no other.
        return importlib.import_module("seqmill.kernels.triton_attention").KERNEL
    version = installed_flash_attn()
    if version is None:
        raise NotAvailable("flash-attn 2 is not installed")
    return Kernel(name, f"flash-attn {version}", _flash_attn(), frozenset({None, biases.Alibi.kind}))


def installed_flash_attn() -> str | None:
    """The version of flash-attn 2 that is installed, or None.

    Known from the distribution: flash-attn-4 installs into the same module name and has another interface.
    """
    try:
        version = importlib.metadata.version("flash-attn")
    except importlib.metadata.PackageNotFoundError:
        return None
    return version if version.startswith("2.") else None


def _flash_attn() -> Attend:
    varlen = importlib.import_module("flash_attn").flash_attn_varlen_func

    def attend(query, key, value, packing, scale=None, bias=None):
        # Versions before 2.4 do not know the argument.
        options = {} if bias is None else {"alibi_slopes": bias.slopes}
        cu_seqlens, longest = packing.cu_seqlens, packing.max_seqlen
        return varlen(query, key, value, cu_seqlens, cu_seqlens, longest, longest, softmax_scale=scale, **options)

    return attend


def _torch_flash(query, key, value, packing, scale=None, bias=None):
    # What `torch.nn.attention.varlen.varlen_attn` calls where it takes FlashAttention-2. Its own first call imports
    # PyTorch's compiler, which takes 4 s, and newer versions take cuDNN's kernel on some GPUs.
    cu_seqlens, longest = packing.cu_seqlens, packing.max_seqlen
    forward = torch.ops.aten._flash_attention_forward
    return forward(
        query, key, value, cu_seqlens, cu_seqlens, longest, longest, 0.0, False, return_debug_mask=False, scale=scale
    )[0]


def faster(
    one: Kernel, other: Kernel, needs: AttentionNeeds, device: torch.device, dtype: torch.dtype, length: int
) -> Kernel:
    """The faster of two kernels on this GPU, for sequences of so many tokens; logs how they compare."""
    count = max(TIMED_TOKENS // length, 1)
    cu_seqlens = torch.arange(count + 1, dtype=torch.int32, device=device) * length
    packing = Packing(cu_seqlens, length, np.full(count, length))
    qkv = torch.randn(count * length, 3, needs.heads, needs.head_dim, device=device, dtype=dtype).unbind(1)
    how = packing, needs.scale, biases.example(needs.bias, needs.heads, device)
    times = {
        kernel: gpu_seconds(lambda kernel=kernel: kernel.attend(*qkv, *how), TIMED_REPEATS) for kernel in (one, other)
    }
    best, slower = sorted(times, key=times.__getitem__)
    log.info(
        "FlashAttention-2: enabled (%s, %.2f times as fast here as %s)",
        *(best.version, times[slower] / times[best], slower.version),
    )
    return best


def _try_out(kernel: Kernel, needs: AttentionNeeds, device: torch.device, dtype: torch.dtype) -> None:
    """Run two short sequences and compare with standard attention on the CPU: an import that works proves nothing."""
    _check_bias(kernel, needs)
    # Long enough for tiles that lie far from the diagonal.
    lengths = np.array([200, 5])
    cu_seqlens = torch.tensor([0, *lengths.cumsum()], dtype=torch.int32)
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn((205, 3, needs.heads, needs.head_dim), generator=generator).to(dtype)

    def attended(attend: Attend, where: torch.device, dtype: torch.dtype) -> torch.Tensor:
        bias = biases.example(needs.bias, needs.heads, where)
        return attend(*qkv.to(where, dtype).unbind(1), Packing(cu_seqlens.to(where), 200, lengths), needs.scale, bias)

    expected = attended(sdpa.attend, torch.device("cpu"), torch.float32)
    check_result("it", attended(kernel.attend, device, dtype), expected)
