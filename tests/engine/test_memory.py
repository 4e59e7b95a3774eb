"""Measured memory: the fit, and what counts as out of memory."""

import pytest
import torch

from seqmill.engine import memory
from seqmill.errors import is_oom

CPU = torch.device("cpu")


def test_fit_finds_the_line_and_the_largest_batch():
    fit = memory.fit([1000, 4000], [2e9 + 1000 * 5e4, 2e9 + 4000 * 5e4], "measured")
    assert fit.peak(10_000) == pytest.approx(2.5e9)
    largest = fit.largest(4e9)
    assert largest % 256 == 0
    assert fit.peak(largest) <= 0.9 * 4e9 < fit.peak(largest + 256)
    assert fit.largest(1e9) == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 800 bytes."),
            True,
        ),
        (MemoryError(), True),
        (RuntimeError("the room was out of memory lane"), False),
        (ValueError("CUDA error: out of memory"), False),
    ],
)
def test_oom_is_distinguished_from_other_failures(error, expected):
    assert is_oom(error) is expected


def test_smaller_batches_are_measured_where_the_first_do_not_fit(monkeypatch):
    """Whatever ran out, cuBLAS's own allocations included."""
    held = [0]

    def run(tokens: int) -> None:
        if tokens > 5_000:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)")
        held[0] = 10**9 + 1_000 * tokens

    monkeypatch.setattr(memory, "forget_peaks", lambda _: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: held[0])
    found = memory.measure(run, CPU)
    assert found.bytes_per_token == pytest.approx(1_000)
    assert "1,024 and 4,096 tokens" in found.basis
