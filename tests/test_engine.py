"""The parts around the model: attention ladder, store, memory, allocator, device, diagnoses."""

import errno
import json
import logging
import multiprocessing
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import h5py
import jsonschema
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock

from seqmill import allocator, attention, checksums, gpu, memory, oom, pooling, progress, store
from seqmill.attention import Packing
from seqmill.batches import PackedBatches, Sequences
from seqmill.errors import UserError
from seqmill.esm2 import vocabulary
from seqmill.fasta import Protein
from seqmill.job import Job
from seqmill.memory import Fit
from seqmill.operators import PLAIN
from seqmill.pipeline import NotFinite, Pipeline, Timing
from seqmill.store import EmbeddingFile

CPU = torch.device("cpu")
GIB = 2**30


def test_ladder_warns_once_and_falls_back_on_the_cpu(caplog):
    with caplog.at_level(logging.WARNING):
        kernel = attention.choose("auto", CPU, torch.bfloat16, 4, 16)
    assert kernel.name == "sdpa"
    expected = "FlashAttention-2 not available (no CUDA GPU in use, running on cpu): using standard attention"
    assert [record.message for record in caplog.records] == [expected]


@pytest.mark.parametrize("waste", [1.0, 1.2, 2.0])
def test_standard_attention_keeps_to_each_sequence(monkeypatch, waste):
    similar = attention._similar
    monkeypatch.setattr(attention, "_similar", lambda tokens, _: similar(tokens, waste))
    lengths = np.array([9, 8, 8, 5, 1])
    query, key, value = torch.randn(3, lengths.sum() + 4, 2, 8)
    packing = Packing(torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32), 128, lengths)
    found = attention.standard_attention(query, key, value, packing)
    start = 0
    for length in lengths:
        part = slice(start, start + length)
        q, k, v = (x[part].transpose(0, 1) for x in (query, key, value))
        weights = F.softmax(q @ k.transpose(1, 2) / 8**0.5, dim=-1)
        assert torch.allclose(found[part], (weights @ v).transpose(0, 1), atol=1e-6)
        start += length


def test_similar_lengths_share_a_batch_within_the_waste():
    tokens = np.array([100, 99, 90, 50, 49, 10])
    assert attention._similar(tokens, 1.2) == [(0, 4), (4, 5), (5, 6)]
    assert attention._similar(np.array([7, 7, 5, 5]), 1.0) == [(0, 2), (2, 4)]


TYPES = {"mean": (4, np.dtype("f4")), "residues": (4, np.dtype("f2"))}
LENGTHS = np.array([2, 1, 3])
RESIDUES = np.arange(24, dtype=np.float16).reshape(6, 4)


def lay_out(path: Path) -> None:
    store.lay_out(path, ["a", "b", "c"], LENGTHS, TYPES, {"model": "m"})


def fill(file: EmbeddingFile) -> None:
    """Rows in no order."""
    file.write(np.array([2, 0]), {"mean": np.full((2, 4), [[2], [0]]), "residues": RESIDUES[[3, 4, 5, 0, 1]]})
    file.write(np.array([1]), {"mean": np.ones((1, 4)), "residues": RESIDUES[[2]]})


def test_rows_are_written_in_any_order(tmp_path):
    path = tmp_path / "e.h5"
    lay_out(path)
    with EmbeddingFile(path, writable=True) as file:
        fill(file)
    with h5py.File(path) as file:
        assert file["ids"].asstr()[:].tolist() == ["a", "b", "c"]
        assert file["mean"][:, 0].tolist() == [0, 1, 2]
        assert np.array_equal(file["residues"][:], RESIDUES)
        assert file["offsets"][:].tolist() == [0, 2, 3, 6]
        assert file.attrs["model"] == "m"
    with EmbeddingFile(path) as file:
        assert np.array_equal(file.values("residues"), RESIDUES)


def test_blocks_give_what_was_written_in_ascending_order(tmp_path, monkeypatch):
    path = tmp_path / "e.h5"
    lay_out(path)
    monkeypatch.setattr(store, "BLOCK_BYTES", 24)
    with EmbeddingFile(path, writable=True) as file:
        fill(file)
        blocks = [(rows.tolist(), values.tolist()) for rows, values in file.blocks("residues", np.array([2, 1, 0]))]
        some = [rows.tolist() for rows, _ in file.blocks("mean", np.array([2, 0]))]
    assert blocks == [([0, 1], RESIDUES[:3].tolist()), ([2], RESIDUES[3:].tolist())]
    assert some == [[0], [2]]


def test_every_flipped_bit_changes_a_checksum(tmp_path):
    path = tmp_path / "e.h5"
    lay_out(path)
    with EmbeddingFile(path, writable=True) as file:
        fill(file)

    def sums() -> dict[str, int]:
        with EmbeddingFile(path) as file:
            rows = np.arange(3)
            return {"around": checksums.around(file)} | {n: checksums.of_dataset(file, n, rows) for n in TYPES}

    whole, content = sums(), path.read_bytes()
    with EmbeddingFile(path) as file:
        places = {name: range(extent.offset, extent.end) for name, extent in file.extents.items()}
    for place in [*places["mean"], *places["residues"]]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        found = sums()
        assert [name for name in whole if found[name] != whole[name]] == [n for n in TYPES if place in places[n]]
    path.write_bytes(content + b"more")
    assert sums()["around"] != whole["around"]


def test_checksums_of_batches_add_up_to_those_of_the_file(tmp_path):
    lay_out(tmp_path / "e.h5")
    with EmbeddingFile(tmp_path / "e.h5", writable=True) as file:
        fill(file)
        parts = checksums.of_rows(file, "residues", np.array([2, 0]), RESIDUES[[3, 4, 5, 0, 1]])
        parts += checksums.of_rows(file, "residues", np.array([1]), RESIDUES[[2]])
        whole = checksums.of_dataset(file, "residues", np.arange(3))
        # Exchanged rows are another file.
        exchanged = checksums.of_rows(file, "mean", np.array([0, 1]), file.values("mean")[[1, 0]])
        assert parts % checksums.MODULUS == whole
        assert exchanged != checksums.of_dataset(file, "mean", np.array([0, 1]))


def test_too_little_room_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2e9))
    types = {"mean": (1280, np.dtype("f4")), "residues": (1280, np.dtype("f2"))}
    with pytest.raises(UserError, match=r"need 2\.6 GB, but the disk has 2\.0 GB free; make room"):
        store.check_room(tmp_path, np.array([1_000_000]), types)


def test_a_disk_that_fills_up_is_told_in_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    lay_out(tmp_path / "e.h5")
    monkeypatch.setattr(os, "pwrite", full)
    sentence = "the disk is full or the quota used up; make room and run"
    with EmbeddingFile(tmp_path / "e.h5", writable=True) as file, pytest.raises(UserError, match=sentence):
        fill(file)


def test_several_layers_have_a_dataset_each():
    assert pooling.dataset_names((33,), ("mean", "bos")) == {"mean": (33, "mean"), "bos": (33, "bos")}
    assert pooling.dataset_names((0, 6), ("mean",)) == {"mean_layer0": (0, "mean"), "mean_layer6": (6, "mean")}


def test_fit_finds_the_line_and_the_largest_batch():
    fit = memory.fit([1000, 4000], [2e9 + 1000 * 5e4, 2e9 + 4000 * 5e4], "measured")
    assert fit.peak(10_000) == pytest.approx(2.5e9)
    largest = fit.largest(4e9)
    assert largest % 256 == 0
    assert fit.peak(largest) <= 0.9 * 4e9 < fit.peak(largest + 256)
    assert fit.largest(1e9) == 0


def test_batch_size_is_the_plateau_or_what_fits():
    fit = Fit(1 * GIB, 50 * 1024, "measured")
    assert memory.choose_batch_size(None, fit, 80 * GIB)[0] == memory.PLATEAU_TOKENS
    size, reason = memory.choose_batch_size(None, fit, 2 * GIB)
    assert size == fit.largest(2 * GIB) < memory.PLATEAU_TOKENS
    assert reason.startswith("auto because no more fits")
    assert memory.choose_batch_size(777, fit, 2 * GIB) == (777, "as requested")
    assert memory.choose_batch_size(None, None, None)[0] == memory.CPU_TOKENS


def test_batch_size_is_the_smallest_on_the_plateau_of_speed():
    fit = Fit(1 * GIB, 50 * 1024, "measured")
    rates = {8_192: 90.0, 16_384: 99.0, 32_768: 100.0, 65_536: 98.0}
    size, reason = memory.choose_batch_size(None, fit, 80 * GIB, rates.__getitem__)
    assert size == 16_384
    assert reason.startswith("auto because as fast as any: 90% at 8,192, 99% at 16,384, 100% at 32,768, 98% at 65,536;")
    # What does not fit is not tried.
    tried = []
    size, _ = memory.choose_batch_size(None, fit, 2 * GIB, lambda tokens: tried.append(tokens) or rates[tokens])
    assert size == 16_384
    assert set(tried) == {8_192, 16_384}


def test_a_size_that_does_not_fit_after_all_is_not_taken():
    fit = Fit(1 * GIB, 50 * 1024, "measured")
    assert memory.choose_batch_size(None, fit, 80 * GIB, lambda tokens: 1.0 if tokens < 20_000 else 0.0)[0] == 8_192
    assert memory.choose_batch_size(None, fit, 80 * GIB, lambda _: 0.0)[0] == memory.PLATEAU_TOKENS


def test_one_slow_measurement_does_not_decide():
    """A GPU that is still cool, or shared, must not make a small batch look best."""
    fit, calls = Fit(1 * GIB, 50 * 1024, "measured"), []

    def rate(tokens: int) -> float:
        calls.append(tokens)
        return 1.0 if len(calls) <= len(memory.TRIED) else float(tokens)

    assert memory.choose_batch_size(None, fit, 80 * GIB, rate)[0] == max(memory.TRIED)


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
def test_oom_is_told_from_other_failures(error, expected):
    assert memory.is_oom(error) is expected


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


def test_requested_bytes_are_read_from_the_message():
    assert oom.requested_bytes(RuntimeError("Tried to allocate 1.50 GiB. GPU")) == int(1.5 * GIB)
    assert oom.requested_bytes(RuntimeError("you tried to allocate 800 bytes.")) == 800
    assert oom.requested_bytes(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")) is None


def usage(**changed) -> oom.Usage:
    usual = {"usable_bytes": 8 * GIB, "allowed_bytes": 8 * GIB, "total_bytes": 8 * GIB, "peak_reserved_bytes": 7 * GIB}
    return oom.Usage(**{**usual, **changed})


def work(**changed) -> oom.Work:
    usual = {"batch_size": 200_000, "sequences_in_batch": 100, "longest_sequence": 3000}
    return oom.Work(
        **{"shard": "0", "model": "m", "dtype": "bfloat16", "attention": "a", "model_bytes": 1} | usual | changed
    )


FIT = Fit(2 * GIB, 50 * 1024, "measured")


def test_recommendation_is_what_fits():
    size, basis = oom.recommend_batch_size(work(), usage(), FIT)
    assert size == FIT.largest(8 * GIB)
    assert "measured" in basis


def test_no_batch_size_helps_a_giant_sequence_or_missing_weights():
    size, basis = oom.recommend_batch_size(work(longest_sequence=400_000), usage(), FIT)
    assert size is None
    assert "one sequence alone has 400,002" in basis
    unloaded = work(batch_size=None, longest_sequence=None, model_bytes=28 * GIB)
    size, basis = oom.recommend_batch_size(unloaded, usage(), None)
    assert size is None
    assert "the weights alone take 28.00 GiB in bfloat16, and this process can have 8.00 GiB" in basis


def test_a_sequence_that_takes_nearly_all_is_recommended_to_be_alone():
    """The margin is for batches, of which there could be smaller ones."""
    longest = FIT.largest(8 * GIB) + 1000
    assert (
        oom.recommend_batch_size(work(batch_size=2 * longest, longest_sequence=longest), usage(), FIT)[0] == longest + 2
    )
    # But not where it was alone already.
    assert oom.recommend_batch_size(work(batch_size=longest, longest_sequence=longest), usage(), FIT)[0] is None


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
    schema = Path(__file__).parents[1] / "workflow/schemas/oom.schema.json"
    jsonschema.validate(content, json.loads(schema.read_text()))
    assert content["requested_bytes"] == int(1.5 * GIB)
    assert "-> set performance.batch_size" in oom.describe(content)


@pytest.mark.parametrize(
    ("present", "setting", "expected"),
    [
        ({}, False, "expandable_segments:False"),
        ({}, True, "expandable_segments:True"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}, True, "max_split_size_mb:64,expandable_segments:True"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, False, "expandable_segments:True"),
        ({"PYTORCH_ALLOC_CONF": "expandable_segments:False"}, True, "expandable_segments:True"),
    ],
)
def test_allocator_setting_is_merged_with_the_environment(present, setting, expected):
    environment = dict(present)
    assert allocator.configure(setting, environment) == expected
    assert set(environment.values()) == {expected}


def hold(path: str, ready, done) -> None:
    with FileLock(path):
        ready.set()
        done.wait(30)


def test_a_taken_gpu_is_left_alone_until_its_holder_ends(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(gpu, "POLL_SECONDS", 0.05)
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(str(tmp_path / "0.lock"), ready, done))
    holder.start()
    assert ready.wait(30)
    taken, free = FileLock(tmp_path / "0.lock"), FileLock(tmp_path / "1.lock")
    assert gpu._take({0: taken, 1: free}) == (free, 1)
    # However the holder ends, the kernel frees its lock.
    holder.kill()
    assert gpu._take({0: taken}) == (taken, 0)
    holder.join()


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """PyTorch sees two GPUs that are not there."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(gpu, "LOCKS", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"GPU-{index}"))


def test_two_jobs_never_share_a_gpu_and_a_freed_one_is_taken_again(two_gpus):
    with gpu.lease("auto") as first:
        with gpu.lease("auto") as second:
            assert {first.index, second.index} == {0, 1}
        with gpu.lease("auto") as third:
            assert third == second


def test_a_job_whose_gpu_slurm_chose_takes_no_lock(two_gpus, monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with gpu.lease("auto") as first, gpu.lease("auto") as second:
        assert first.index == second.index == 0
    assert list(tmp_path.iterdir()) == []
    # In an allocation with several, jobs of a local run still have to share them out.
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with gpu.lease("auto") as first, gpu.lease("auto") as second:
        assert {first.index, second.index} == {0, 1}


def test_a_card_too_full_to_be_asked_is_reported(two_gpus, monkeypatch):
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
    size, _ = oom.recommend_batch_size(work(batch_size=None, longest_sequence=None), found, None)
    assert size is None
    assert oom.advise(work(), found, size, False)[0].startswith("another process holds 79.2 GiB of this GPU")


def test_a_lock_folder_of_somebody_else_is_told(two_gpus, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "LOCKS", tmp_path / "nowhere")
    with pytest.raises(UserError, match="cannot hold the locks that keep jobs on GPUs of their own"), gpu.lease("auto"):
        pass


def test_devices_that_are_not_there_are_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with gpu.lease("auto") as device:
        assert device.type == "cpu"
    with pytest.raises(UserError, match="PyTorch sees no CUDA GPU"), gpu.lease("cuda"):
        pass


class Broken(torch.nn.Module):
    """A model that yields NaN for one token."""

    operators = PLAIN

    def __call__(self, batch, layers):
        states = batch.tokens.float()[:, None].expand(-1, 4).clone()
        states[batch.tokens == 22] = float("nan")
        return dict.fromkeys(layers, states)


@pytest.mark.parametrize("name", ["mean", "residues"])
def test_a_result_that_is_not_finite_names_its_sequence(name):
    records = [Protein(str(n), text, None, 0) for n, text in enumerate([b"AAA", b"GGGGG", b"GGWG"])]
    batches = PackedBatches(Sequences(records), vocabulary(), 100, fill=False)
    with pytest.raises(NotFinite) as caught:
        Pipeline(Broken(), CPU, {name: (0, name)}).run(batches, lambda _: None, lambda _: None)
    assert caught.value.row == 2


def test_a_failing_writer_stops_the_pipeline():
    def fail(_):
        raise OSError(28, "No space left on device")

    records = [Protein(str(n), b"AAA", None, 0) for n in range(40)]
    batches = PackedBatches(Sequences(records), vocabulary(), 5, fill=False)
    finished = []
    with pytest.raises(OSError, match="No space left"):
        Pipeline(Broken(), CPU, {"mean": (0, "mean")}).run(batches, fail, finished.append)
    assert len(finished) < 40


@pytest.mark.parametrize(
    ("timing", "says"),
    [
        (Timing(steady_s=10, gpu_idle_s=0.5, waited_for_writer_s=9), None),
        (Timing(steady_s=10, gpu_idle_s=4, waited_for_writer_s=5), "the limit was the disk, which took 200 MB/s"),
        (Timing(steady_s=10, gpu_idle_s=4, waited_for_reader_s=5), "the limit was the reader; give the job more CPUs"),
        (Timing(), None),
    ],
)
def test_a_gpu_that_stands_idle_is_told(caplog, timing, says):
    job = Job.__new__(Job)
    job.pipeline = SimpleNamespace(timing=timing)
    job._tell_waiting(2_000_000_000)
    assert (says in caplog.text) if says else not caplog.text


def test_progress_in_a_log_is_a_line_now_and_then(monkeypatch, caplog):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0)
    with caplog.at_level(logging.INFO), progress.Progress(1000) as shown:
        shown.add(250)
    assert "250 of 1,000 residues" in caplog.text
    assert "residues/s" in caplog.text
    assert caplog.text.rstrip().endswith("left")
