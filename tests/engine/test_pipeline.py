"""The pipeline around a model: results that are not finite, writers that fail, and a GPU that has to wait."""

import pytest
import torch

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
        (Timing(steady_s=10, gpu_idle_s=4, waited_for_writer_s=5), "the limit was the disk, which took 200 MB/s"),
        (Timing(steady_s=10, gpu_idle_s=4, waited_for_reader_s=5), "the limit was the reader; give the job more CPUs"),
        (Timing(), None),
    ],
)
def test_an_idle_gpu_is_reported(caplog, timing, says):
    warn_of_idle_gpu(timing, 2_000_000_000)
    assert (says in caplog.text) if says else not caplog.text
