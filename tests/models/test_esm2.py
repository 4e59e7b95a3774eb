"""The packed ESM-2 forward against transformers' EsmModel, sequence by sequence, in float32 on the CPU.

Compared by relative L2, largest error and norm ratio per residue: cosines hide common factors such as the 0.88 of
token dropout. The reference has its rotary frequencies in float32 (the demonstration checkpoint stores float16 ones).
"""

import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from common import load_model
from errors import errors, packed_states, reference_model, reference_states
from random_model import write
from safetensors.torch import load_file, save_file

from seqmill.inputs.fasta import Record
from seqmill.inputs.sequences import Sequences
from seqmill.kernels import packing
from seqmill.models import hub
from seqmill.models.esm2 import config as esm2
from seqmill.models.esm2 import network as esm2_network
from seqmill.models.family import Model
from seqmill.models.source import Source
from seqmill.outputs import representations

CPU = torch.device("cpu")
LETTERS = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWYXBUZO", dtype=np.uint8)


def proteins(lengths: list[int], seed: int = 0) -> list[Record]:
    """Random sequences with every letter of the alphabet."""
    random = np.random.default_rng(seed)
    return [Record(str(n), random.choice(LETTERS, length).tobytes(), None, 0) for n, length in enumerate(lengths)]


def load(folder) -> Model:
    return load_model(folder, torch.float32, CPU, "sdpa")


def embed(model, records: list[Record], name: str = "residues", layer: int = -1, max_tokens: int = 700):
    """Residue states (or another pooling) per record, float32."""
    return packed_states(model, Sequences(records), CPU, max_tokens, layer, name)


def expected(reference, records: list[Record], layer: int = -1) -> list[torch.Tensor]:
    """transformers' residue states, one sequence at a time."""
    return [reference_states(reference, record.sequence, layer) for record in records]


def assert_equal(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    error = errors(found, wanted)
    assert error["worst_protein"] < 1e-5
    assert error["worst_residue"] < 2e-5
    assert 0.99999 < error["norm_ratio_min"] <= error["norm_ratio_max"] < 1.00001


@pytest.fixture(scope="module")
def demo(demo_model):
    return load(demo_model)


@pytest.fixture(scope="module")
def reference(demo_model):
    return reference_model(str(demo_model), CPU)


@pytest.fixture(scope="module")
def mixed() -> list[Record]:
    return proteins([1, 2, 60, 60, 61, 128, 400, 33, 5, 1100])


def test_agrees_with_transformers_on_trained_weights(demo, reference, mixed):
    assert_equal(embed(demo, mixed), expected(reference, mixed))


@pytest.mark.parametrize("layer", [0, 1, 3, 5])
def test_intermediate_layers_agree_too(demo, reference, mixed, layer):
    assert_equal(embed(demo, mixed, layer=layer), expected(reference, mixed, layer))


@pytest.mark.parametrize("size", ["8M", "35M", "150M"], ids=["8M-head16", "35M-head24", "150M-head32"])
@pytest.mark.slow
def test_agrees_with_transformers_at_real_sizes(tmp_path, size):
    write(size, tmp_path)
    records = proteins([40, 7, 90], seed=1)
    assert_equal(embed(load(tmp_path), records), expected(reference_model(str(tmp_path), CPU), records))


def test_agrees_when_weights_come_as_bin(tmp_path, demo_model, demo):
    from transformers import EsmForMaskedLM

    source = EsmForMaskedLM.from_pretrained(demo_model)
    torch.save(source.state_dict(), tmp_path / "pytorch_model.bin")
    source.config.save_pretrained(tmp_path)
    records = proteins([30, 31])
    for a, b in zip(embed(load(tmp_path), records), embed(demo, records), strict=True):
        assert torch.equal(a, b)


def test_agrees_whatever_form_the_files_have(tmp_path, demo_model, demo):
    """In several files, in PyTorch's format from before 1.6, and without the prefix that a model with a head has."""
    tensors = load_file(demo_model / "model.safetensors")
    bare = {name.removeprefix("esm."): tensor for name, tensor in tensors.items() if name.startswith("esm.")}
    names = sorted(bare)
    records = proteins([30, 31])
    for suffix, save in (
        ("safetensors", save_file),
        ("bin", partial(torch.save, _use_new_zipfile_serialization=False)),
    ):
        folder = tmp_path / suffix
        folder.mkdir()
        shutil.copy(demo_model / "config.json", folder)
        stem = "model" if suffix == "safetensors" else "pytorch_model"
        for number, part in enumerate((names[::2], names[1::2])):
            save({name: bare[name] for name in part}, folder / f"{stem}-{number + 1:05}-of-00002.{suffix}")
        for a, b in zip(embed(load(folder), records), embed(demo, records), strict=True):
            assert torch.equal(a, b)


def test_packed_equals_one_by_one(demo, mixed):
    packed = embed(demo, mixed, max_tokens=4000)
    alone = [embed(demo, [record])[0] for record in mixed]
    assert_equal(packed, alone)


def test_order_of_the_input_changes_no_bit(demo):
    records = proteins([50, 70, 70, 20, 90, 70, 33])
    shuffled = [records[i] for i in (3, 5, 0, 6, 2, 1, 4)]
    vectors = {r.id: v for r, v in zip(records, embed(demo, records, "mean"), strict=True)}
    for record, vector in zip(shuffled, embed(demo, shuffled, "mean"), strict=True):
        assert torch.equal(vector, vectors[record.id])


def test_a_neighbour_is_never_seen(demo):
    records = proteins([80, 60, 60, 40])
    changed = [records[0], Record("other", proteins([60], seed=9)[0].sequence, None, 0), *records[2:]]
    before, after = embed(demo, records), embed(demo, changed)
    assert not torch.allclose(before[1], after[1])
    for row in (0, 2, 3):
        assert torch.equal(before[row], after[row])


def test_mean_is_over_residues_only(demo, reference, mixed):
    means = torch.cat(embed(demo, mixed, "mean"))
    wanted = torch.stack([states.mean(0) for states in expected(reference, mixed)])
    assert ((means - wanted).norm(dim=1) / wanted.norm(dim=1)).max() < 1e-5


def test_bos_is_the_begin_token(demo, reference, mixed):
    tokens = torch.tensor([[0, *(esm2.TOKENS.index(chr(c)) for c in mixed[2].sequence), 2]])
    with torch.inference_mode():
        wanted = reference(tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state[0, 0]
    found = embed(demo, mixed, "bos")[2][0]
    assert (found - wanted).norm() / wanted.norm() < 1e-5


# Each breaks one thing the comparison above must notice; were it blind to one, its test would fail here.


def positions_restart_late(monkeypatch):
    # Never restarting at all would hardly show: rotary attention is relative, and 5,000 tokens on it costs 3e-6
    # in rounding. test_batching.py holds the positions themselves to restarting.
    positions = packing.Batch.positions
    monkeypatch.setattr(packing.Batch, "positions", lambda batch: positions(batch).roll(3))


def no_output_bias(monkeypatch):
    def forward(self, batch, layers):
        self.shifts.zero_()
        return original(self, batch, layers)

    original = esm2_network.ESM2.forward
    monkeypatch.setattr(esm2_network.ESM2, "forward", forward)


def no_token_dropout_scale(monkeypatch):
    monkeypatch.setattr(esm2_network, "TOKEN_DROPOUT_SCALE", 1.0)


def cumulative_lengths_off_by_one(monkeypatch):
    def forward(self, batch, layers):
        shifted = batch.token_counts.copy()
        shifted[0] -= 1
        shifted[-1] += 1
        return original(self, batch._replace(token_counts=shifted), layers)

    original = esm2_network.ESM2.forward
    monkeypatch.setattr(esm2_network.ESM2, "forward", forward)


def pooling_with_special_tokens(monkeypatch):
    def mean(states, batch, operators):
        return operators.mean(states, batch.kept[0], batch.kept[3])

    entry = representations.REPRESENTATIONS["mean"]
    monkeypatch.setitem(representations.REPRESENTATIONS, "mean", replace(entry, compute=mean))


@pytest.mark.parametrize(
    "fault",
    [
        positions_restart_late,
        no_output_bias,
        no_token_dropout_scale,
        cumulative_lengths_off_by_one,
        pooling_with_special_tokens,
    ],
)
def test_faults_would_be_noticed(monkeypatch, demo_model, reference, fault):
    fault(monkeypatch)
    records = proteins([90, 60, 30])
    means = torch.cat(embed(load(demo_model), records, "mean"))
    wanted = torch.stack([states.mean(0) for states in expected(reference, records)])
    assert ((means - wanted).norm(dim=1) / wanted.norm(dim=1)).max() > 1e-4


def test_parameters_are_counted_before_loading(demo_model, demo):
    config = Source.of(hub.resolve(str(demo_model))).config
    assert config.parameter_count == sum(parameter.numel() for parameter in demo.parameters())


def test_vocabulary_is_that_of_the_checkpoint(demo_model):
    assert (demo_model / "vocab.txt").read_text().split() == esm2.TOKENS


@pytest.mark.network
def test_agrees_with_published_values_of_the_real_8m_model():
    """Values of transformers' own test of facebook/esm2_t6_8M_UR50D (test_inference_no_head)."""
    letters = "".join(esm2.TOKENS[token] for token in (6, 4, 13, 5, 4, 16, 12, 11, 7)).encode()
    states = embed(load("facebook/esm2_t6_8M_UR50D"), [Record("p", letters, None, 0)])[0]
    wanted = torch.tensor([[0.3034, 0.0053, 0.3108], [0.3228, -0.2499, 0.3415]])
    assert torch.allclose(states[:2, :3], wanted, atol=1e-4)
