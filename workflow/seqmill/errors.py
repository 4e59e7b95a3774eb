"""Errors for users, exit codes, and what an exception means."""

import errno
import re
from typing import Any

EXIT_OUT_OF_MEMORY = 3

# Allocation failures that PyTorch raises as plain RuntimeErrors.
OOM_MESSAGES = (
    "CUDA error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
)
DISK_FULL_NUMBERS = (errno.ENOSPC, errno.EDQUOT)


class UserError(Exception):
    """A mistake in the input or the settings: one sentence that says where, what, and what to do."""


class OutOfMemory(Exception):
    """Memory ran out in `seqmill.embed`; says what would help.

    Attributes:
        recommended_batch_size: one in tokens that would fit; None where none would.
        report: what is known of it, the content of `oom.json`.
    """

    def __init__(self, report: dict[str, Any]):
        self.report, self.recommended_batch_size = report, report["recommended_batch_size"]
        advice = [f"give batch_size={self.recommended_batch_size}"] if self.recommended_batch_size else []
        # The first one in the report is the same, for config.yaml.
        advice += report["recommendations"][len(advice) :]
        device = report["device"]["name"]
        super().__init__(f"out of memory on {device} ({report['message']}); {', or '.join(advice)}")


def first_line(error: BaseException) -> str:
    """An exception's message in one line, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def is_oom(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, on the GPU or on the host."""
    # By name: this module must not import torch.
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in OOM_MESSAGES)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an exception, or one that led to it, means a full disk or a used-up quota.

    Where HDF5 fails to flush or to close a file, h5py raises a RuntimeError that has the number in its text only.
    """
    if error is None:
        return False
    number = re.search(r"\berrno = (\d+)", str(error))
    if getattr(error, "errno", None) in DISK_FULL_NUMBERS or (number and int(number[1]) in DISK_FULL_NUMBERS):
        return True
    return is_disk_full(error.__cause__ or (None if error.__suppress_context__ else error.__context__))
