"""The out-of-memory report: what fits, what would help, and who holds the memory."""

import json
from types import SimpleNamespace

import jsonschema
import torch
from paths import REPOSITORY

from seqmill.engine import oom
from seqmill.engine.memory import Fit
from seqmill.units import GIB

CPU = torch.device("cpu")


def test_requested_bytes_are_read_from_the_message():
    assert oom.requested_bytes(RuntimeError("Tried to allocate 1.50 GiB. GPU")) == int(1.5 * GIB)
    assert oom.requested_bytes(RuntimeError("you tried to allocate 800 bytes.")) == 800
    assert oom.requested_bytes(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")) is None


def usage(**changed) -> oom.Usage:
    usual = {"usable_bytes": 8 * GIB, "allowed_bytes": 8 * GIB, "total_bytes": 8 * GIB, "peak_reserved_bytes": 7 * GIB}
    return oom.Usage(**{**usual, **changed})


def work(**changed) -> oom.Work:
    usual = {"batch_size": 200_000, "sequences_in_batch": 100, "longest_sequence": 3000, "longest_tokens": 3002}
    return oom.Work(
        **{"shard": "0", "model": "m", "dtype": "bfloat16", "attention": "a", "model_bytes": 1} | usual | changed
    )


FIT = Fit(2 * GIB, 50 * 1024, "measured")


def test_recommendation_is_what_fits():
    size, basis = oom.recommend_batch_size(work(), usage(), FIT)
    assert size == FIT.largest(8 * GIB)
    assert "measured" in basis


def test_no_batch_size_helps_a_giant_sequence_or_missing_weights():
    size, basis = oom.recommend_batch_size(work(longest_tokens=400_002), usage(), FIT)
    assert size is None
    assert "one sequence alone has 400,002" in basis
    unloaded = work(batch_size=None, longest_tokens=None, model_bytes=28 * GIB)
    size, basis = oom.recommend_batch_size(unloaded, usage(), None)
    assert size is None
    assert "the weights alone take 28.00 GiB in bfloat16, and this process can have 8.00 GiB" in basis


def test_a_sequence_that_takes_nearly_all_is_recommended_to_be_alone():
    """The margin is for batches, of which there could be smaller ones."""
    longest = FIT.largest(8 * GIB) + 1000
    assert (
        oom.recommend_batch_size(work(batch_size=2 * longest, longest_tokens=longest + 2), usage(), FIT)[0]
        == longest + 2
    )
    # But not where it was alone already.
    assert oom.recommend_batch_size(work(batch_size=longest, longest_tokens=longest + 2), usage(), FIT)[0] is None


def test_recommendation_is_below_what_failed_even_if_the_fit_promised_more():
    size, _ = oom.recommend_batch_size(work(batch_size=50_000), usage(), FIT)
    assert size == int(0.75 * 50_000) // 256 * 256


def test_advice_puts_the_most_useful_first():
    advice = oom.advise(
        work(dtype="float32"),
        usage(used_by_others_bytes=3 * GIB, allowed_bytes=11 * GIB, fragmentation_bytes=2 * GIB),
        1024,
        False,
    )
    starts = [
        "set performance.batch_size to 1024",
        "another process holds 3.0 GiB",
        "set performance.expandable_segments",
    ]
    assert all(line.startswith(start) for line, start in zip(advice, starts, strict=False))
    assert "bfloat16" in advice[3]
    assert not any("expandable" in line for line in oom.advise(work(), usage(fragmentation_bytes=2 * GIB), 1024, True))
    # Others are not to blame where this process may not have more anyway.
    assert not any(
        "another process" in line for line in oom.advise(work(), usage(used_by_others_bytes=3 * GIB), 1, True)
    )


def test_report_keeps_to_its_schema():
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB.")
    content = oom.report(work(), usage(), FIT, error, CPU, "expandable_segments:False", {"torch": "2"})
    schema = REPOSITORY / "workflow/schemas/oom.schema.json"
    jsonschema.validate(content, json.loads(schema.read_text()))
    assert content["requested_bytes"] == int(1.5 * GIB)
    assert "-> set performance.batch_size" in oom.describe(content)


def test_a_card_too_full_to_be_asked_is_reported(monkeypatch):
    """CUDA needs some memory before it can say how much there is."""
    full = torch.AcceleratorError("CUDA error: out of memory")

    def ask(_):
        raise full

    monkeypatch.setattr(torch.cuda, "mem_get_info", ask)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80 * GIB, uuid="0"))
    for name in ("memory_reserved", "memory_allocated", "max_memory_allocated", "max_memory_reserved"):
        monkeypatch.setattr(torch.cuda, name, lambda _: 0)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda _: {})
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda _: 1.0, raising=False)
    found = oom.read_usage(torch.device("cuda", 0))
    assert (found.free_bytes, found.usable_bytes, found.allowed_bytes) == (0, 0, 80 * GIB)
    size, _ = oom.recommend_batch_size(work(batch_size=None, longest_sequence=None, longest_tokens=None), found, None)
    assert size is None
    assert oom.advise(work(), found, size, False)[0].startswith("another process holds 79.2 GiB of this GPU")
