"""Automatic choices and their reasons, without a GPU."""

from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from seqmill.engine import tuning
from seqmill.engine.memory import Fit
from seqmill.engine.tuning import AS_BEFORE, AS_REQUESTED, Choice
from seqmill.kernels.needs import AttentionNeeds
from seqmill.units import GIB

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def batch_size(fit: Fit, usable: int, rate: Callable[[int], float] | None = None) -> Choice:
    rates = partial(tuning.best_rates, rate=rate) if rate else None
    return tuning.batch_size(None, AS_REQUESTED, fit, usable, rates)


def test_batch_size_is_the_plateau_or_what_fits():
    fit = Fit(1 * GIB, 50 * 1024, "measured")
    assert batch_size(fit, 80 * GIB).value == tuning.PLATEAU_TOKENS
    size, reason = astuple(batch_size(fit, 2 * GIB))
    assert size == fit.largest(2 * GIB) < tuning.PLATEAU_TOKENS
    assert reason.startswith("auto because no more fits")
    assert tuning.batch_size(777, AS_BEFORE, fit, 2 * GIB) == Choice(777, AS_BEFORE)
    assert tuning.batch_size(None).value == tuning.CPU_TOKENS


def test_batch_size_is_the_smallest_on_the_plateau_of_speed():
    fit = Fit(1 * GIB, 50 * 1024, "measured")
    rates = {8_192: 90.0, 16_384: 99.0, 32_768: 100.0, 65_536: 98.0}
    size, reason = astuple(batch_size(fit, 80 * GIB, rates.__getitem__))
    assert size == 16_384
    assert reason.startswith("auto because as fast as any: 90% at 8,192, 99% at 16,384, 100% at 32,768, 98% at 65,536;")
    # What does not fit is not tried.
    tried = []
    size, _ = astuple(batch_size(fit, 2 * GIB, lambda tokens: tried.append(tokens) or rates[tokens]))
    assert size == 16_384
    assert set(tried) == {8_192, 16_384}


def test_a_size_that_does_not_fit_after_all_is_not_taken():
    fit = Fit(1 * GIB, 50 * 1024, "measured")
    assert batch_size(fit, 80 * GIB, lambda tokens: 1.0 if tokens < 20_000 else 0.0).value == 8_192
    assert batch_size(fit, 80 * GIB, lambda _: 0.0).value == tuning.PLATEAU_TOKENS


def test_one_slow_measurement_does_not_decide():
    """A GPU that is still cool, or shared, must not make a small batch look best."""
    fit, calls = Fit(1 * GIB, 50 * 1024, "measured"), []

    def rate(tokens: int) -> float:
        calls.append(tokens)
        return 1.0 if len(calls) <= len(tuning.TRIED) else float(tokens)

    assert batch_size(fit, 80 * GIB, rate).value == max(tuning.TRIED)


# Compiled kernels


class Compiler:
    """Stands for the kernels: how long the work would take without them, and what compiling raises."""

    def __init__(self, seconds: float = 100.0, error: Exception | None = None):
        self.seconds, self.error, self.taken = seconds, error, False

    def choose(self, requested: str, device: torch.device = CUDA, reason: str = AS_REQUESTED) -> Choice:
        wanted = tuning.compiles(requested, reason, device, self.seconds)
        return tuning.compiled(wanted, self.compile_kernels)

    def compile_kernels(self) -> None:
        if self.error:
            raise self.error
        self.taken = True


@pytest.mark.parametrize(
    ("requested", "seconds", "expected"),
    [
        ("auto", 100, Choice(True, "auto because there are about 100 s of work")),
        ("auto", 4, Choice(False, "auto because compiling takes longer than it would save in about 4 s of work")),
        ("on", 1, Choice(True, AS_BEFORE)),
        ("off", 100, Choice(False, AS_BEFORE)),
    ],
)
def test_kernels_are_compiled_where_that_pays(requested, seconds, expected):
    compiler = Compiler(seconds)
    assert compiler.choose(requested, reason=AS_BEFORE) == expected
    assert compiler.taken == expected.value


@pytest.mark.parametrize("requested", ["auto", "on"])
def test_kernels_need_a_gpu(requested):
    compiler = Compiler()
    assert compiler.choose(requested, CPU) == Choice(False, "it needs a GPU")
    assert not compiler.taken


def test_without_a_compiler_the_job_continues_with_a_warning(caplog):
    assert Compiler(error=RuntimeError("no C compiler")).choose("on") == Choice(False, "compilation failed")
    assert "compilation failed (no C compiler): continuing with PyTorch's operators" in caplog.text


def test_memory_that_runs_out_while_compiling_is_not_hidden():
    with pytest.raises(torch.OutOfMemoryError):
        Compiler(error=torch.OutOfMemoryError("CUDA out of memory.")).choose("on")


@pytest.mark.parametrize(
    ("layers", "width", "heads", "matmul_flops", "residues_per_s"),
    [(33, 1280, 20, 670e12, 224_000), (6, 320, 20, 779e12, 3_350_000)],
    ids=["650M on an H200", "8M on an H100"],
)
def test_work_is_estimated_within_a_factor_of_two(layers, width, heads, matmul_flops, residues_per_s):
    """Measured rates of ESM-2 in PyTorch's operators."""
    needs = AttentionNeeds(heads, width // heads)
    config = SimpleNamespace(layer_count=layers, width=width, matrices=12 * width**2, attention=needs)
    estimated = tuning.work_seconds(config, np.full(10_000, 337), layers, matmul_flops)
    assert 0.5 < estimated / (10_000 * 335 / residues_per_s) < 2


# dtype, workers


@pytest.mark.parametrize(
    ("capability", "expected"), [((9, 0), torch.bfloat16), ((8, 0), torch.bfloat16), ((7, 5), torch.float16)]
)
def test_dtype_is_what_the_gpu_computes_fast(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert tuning.dtype("auto", CUDA).value == expected
    assert tuning.dtype("auto", CUDA).reason.startswith("auto because this GPU")
    assert tuning.dtype("float32", CUDA) == Choice(torch.float32, AS_REQUESTED)


def test_dtype_on_the_cpu_is_float32():
    assert tuning.dtype("auto", CPU) == Choice(torch.float32, "auto because this runs on the CPU")


def test_workers_are_this_gpus_share_of_the_cpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(16))
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert tuning.workers(None) == Choice(4, "auto because 16 CPUs serve this process")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    assert tuning.workers(None).value == 2
    assert tuning.workers(0) == Choice(0, AS_REQUESTED)
