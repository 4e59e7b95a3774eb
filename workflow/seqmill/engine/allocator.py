"""How memory is allocated, on the GPU and on the host. Imports no torch: it must act before torch does."""

import contextlib
import ctypes
import os
from collections.abc import MutableMapping

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


def keep_host_memory() -> None:
    """Let glibc keep freed memory for the next batch instead of returning it to the system.

    By default every activation of every batch on the CPU is fresh memory, whose page faults take a fifth of the time.
    Elsewhere than on glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, HEAP_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
