"""The pipeline around a model: results that are not finite, writers that fail, and a GPU that has to wait."""

import pytest
import small_run
import torch

from seqmill.engine import outbox
from seqmill.engine.batching import PackedBatches
from seqmill.engine.pipeline import NotFinite, Pipeline, Timing
from seqmill.engine.report import warn_of_idle_gpu
from seqmill.inputs.fasta import Record
from seqmill.inputs.sequences import Sequences
from seqmill.kernels import sdpa
from seqmill.kernels.operators import EAGER, Kernels
from seqmill.models.esm2.config import tokenizer
from seqmill.outputs.datasets import resolve

CPU = torch.device("cpu")


def batches(letters: list[bytes], max_tokens: int) -> PackedBatches:
    sequences = Sequences([Record(str(n), text, None, 0) for n, text in enumerate(letters)])
    return PackedBatches(sequences, tokenizer().tokens(sequences), tokenizer(), max_tokens, fill=False)


class Broken(torch.nn.Module):
    """A model that yields NaN for one token."""

    kernels = Kernels(sdpa.KERNEL, EAGER)

    def __call__(self, batch, layers):
        states = batch.token_ids.float()[:, None].expand(-1, 4).clone()
        states[batch.token_ids == 22] = float("nan")
        return dict.fromkeys(layers, states)


@pytest.mark.parametrize("name", ["mean", "residues"])
def test_a_result_that_is_not_finite_names_its_sequence(name):
    with pytest.raises(NotFinite) as caught:
        Pipeline(Broken(), CPU, resolve((0,), (name,), 4, "float32")).run(
            batches([b"AAA", b"GGGGG", b"GGWG"], 100), lambda _: None, lambda _: None
        )
    assert caught.value.row == 2


def test_what_is_summed_up_to_infinity_may_be_finite():
    """Only a sum over all values is looked at first."""

    class Large(Broken):
        def __call__(self, batch, layers):
            return dict.fromkeys(layers, torch.full((len(batch.token_ids), 4), 3e38))

    written = []
    pipeline = Pipeline(Large(), CPU, resolve((0,), ("residues",), 4, "float32"))
    pipeline.run(batches([b"AAA"], 100), written.append, lambda _: None)
    assert len(written) == 1


@pytest.mark.parametrize(
    "settings", [{}, {"long": "window", "max_length": 90, "overlap": 30}], ids=["whole", "windows"]
)
def test_memory_that_is_used_again_loses_nothing(tiny_model, small_fasta, tmp_path, monkeypatch, settings):
    """As on a GPU: results lie in a ring, which has room for few of them, and some wait for the rest of their sequence."""
    how = {"pooling": ("mean", "residues"), "batch_size": 200, **settings}
    assert small_run.embed(tiny_model, small_fasta, tmp_path / "plain", **how) == 0
    begin, given = Pipeline.__init__, []

    def with_ring(self, *args):
        begin(self, *args)
        self.has_ring = True

    def take(self, count):
        place = real_take(self, count)
        if place is not None:
            # Whoever still needed it would find this.
            given.append(place.fill_(0x7B))
        return place

    real_take = outbox.Ring.take
    monkeypatch.setattr(Pipeline, "__init__", with_ring)
    monkeypatch.setattr(outbox.Ring, "take", take)
    monkeypatch.setattr(outbox, "WAITING_BYTES", 2**15)
    assert small_run.embed(tiny_model, small_fasta, tmp_path / "ring", **how) == 0
    assert len(given) > 3
    plain, ring = ((tmp_path / name / "embeddings.h5").read_bytes() for name in ("plain", "ring"))
    assert plain == ring


def test_a_failing_writer_stops_the_pipeline():
    def fail(_):
        raise OSError(28, "No space left on device")

    finished = []
    with pytest.raises(OSError, match="No space left"):
        Pipeline(Broken(), CPU, resolve((0,), ("mean",), 4, "float32")).run(
            batches([b"AAA"] * 40, 5), fail, finished.append
        )
    assert len(finished) < 40


@pytest.mark.parametrize(
    ("timing", "says"),
    [
        (Timing(steady_s=10, gpu_idle_s=0.5, waited_for_writer_s=9), None),
        (Timing(steady_s=10, gpu_idle_s=4, waited_for_writer_s=5, writing_s=8), "the disk, which took 250 MB/s"),
        (Timing(steady_s=10, gpu_idle_s=4, waited_for_reader_s=5), "the limit was the reader; give the job more CPUs"),
        (Timing(), None),
    ],
)
def test_an_idle_gpu_is_reported(caplog, timing, says):
    warn_of_idle_gpu(timing, 2_000_000_000)
    assert (says in caplog.text) if says else not caplog.text
