"""How memory is allocated, on the GPU and on the host. Imports no torch: it must act before torch does."""

import contextlib
import ctypes
import os
from collections.abc import MutableMapping

from seqmill.errors import UserError

# PyTorch 2.9 renamed the variable and reads the new name first.
OLD_NAME, NEW_NAME = "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"
# mallopt's parameters in glibc's malloc.h, and the largest values they take.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEEP_BYTES, HEAP_BYTES = 2**30, 2**25


def configure(expandable_segments: bool, environment: MutableMapping[str, str] = os.environ) -> str:
    """Merge the setting into what the environment says already.

    Turned on, it replaces what the environment says of expandable segments; left off, that is kept.

    Returns:
        The configuration in force, as PyTorch will read it.
    """
    present = environment.get(NEW_NAME) or environment.get(OLD_NAME, "")
    parts = [part.strip() for part in present.split(",") if part.strip()]
    others = [part for part in parts if not part.startswith("expandable_segments:")]
    if expandable_segments:
        parts = [*others, "expandable_segments:True"]
    elif parts == others:
        parts.append("expandable_segments:False")
    merged = ",".join(parts)
    environment[OLD_NAME] = merged
    if NEW_NAME in environment:
        environment[NEW_NAME] = merged
    return merged


def in_force(expandable_segments: bool, torch_runs: bool) -> str:
    """Configure the allocator of a process that is not seqmill's own, whose environment is changed only where asked.

    Args:
        torch_runs: PyTorch is imported already.

    Returns:
        As `configure`.

    Raises:
        UserError: it would come too late.
    """
    present = configure(False, dict(os.environ))
    if not expandable_segments or "expandable_segments:True" in present:
        return present
    if torch_runs:
        raise UserError(
            "expandable_segments comes too late, as PyTorch is imported already; set the variable "
            f"{OLD_NAME}=expandable_segments:True before Python starts"
        )
    return configure(True)


def keep_host_memory() -> None:
    """Let glibc keep freed memory for the next batch instead of returning it to the system.

    By default every activation of every batch on the CPU is fresh memory, whose page faults take a fifth of the time.
    Elsewhere than on glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, HEAP_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)


def release_host_memory() -> None:
    """Give freed memory back to the system, and let glibc keep as little as in any process that has used large arrays.

    It comes to these thresholds by itself when such a process frees them: 32 MiB, and twice that.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, 2 * HEAP_BYTES)
        libc.malloc_trim(0)
