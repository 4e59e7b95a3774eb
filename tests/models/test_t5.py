"""The packed T5 forward against transformers' T5EncoderModel, sequence by sequence, in float32 on the CPU.

The golden folders' values were computed once, elsewhere; the other tests compute them here.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import golden
import numpy as np
import pytest
import t5_models
import torch
from golden import load, rows, worst
from paths import FAMILIES
from safetensors.torch import load_file, save_file
from t5_models import proteins

from seqmill.engine.pipeline import NotFinite
from seqmill.kernels.biases import DistanceTable
from seqmill.models.t5 import network, tokens
from seqmill.models.t5.config import Config
from seqmill.models.t5.distances import buckets
from seqmill.outputs import representations

GOLDEN = ["prott5-tiny", "ankh-tiny"]
# Sizes as published; the depth is what differs.
PROTT5_XL = {"vocab_size": 128, "d_model": 1024, "d_kv": 128, "num_heads": 32, "d_ff": 16384}
GATED = {"vocab_size": 144, "d_kv": 64, "relative_attention_num_buckets": 64}
ANKH_BASE = GATED | {"d_model": 768, "num_heads": 12, "d_ff": 3072, "feed_forward_proj": "gated-gelu"}
ANKH2_LARGE = GATED | {"d_model": 1536, "num_heads": 16, "d_ff": 3840, "feed_forward_proj": "gated-silu"}


def agree(folder: Path, lengths: list[int], layers: Iterable[int]) -> None:
    """Hidden states of a checkpoint agree with transformers'."""
    model, reference, records = load(folder), t5_models.reference(folder), proteins(lengths)
    for layer in layers:
        expected = [reference(record.sequence, layer)[:-1] for record in records]
        assert worst(rows(model, records, layer=layer), expected) < 1e-5


# Golden values


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values_are_reproduced(name):
    assert golden.error(load(FAMILIES / name), name) < 1e-5


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_tokens_are_reproduced(name):
    expected = golden.values(name)
    fields = json.loads((FAMILIES / name / "config.json").read_text())
    tokenizer = tokens.tokenizer(FAMILIES / name, Config.read(fields, name))
    for record in golden.proteins():
        found = [*tokenizer.table[np.frombuffer(record.sequence, np.uint8)].tolist(), *tokenizer.after]
        assert found == expected[f"{record.id}/ids"].tolist()


# Each breaks one thing that the comparison above must notice; were it blind to one, its test would fail here.


def bias_in_one_layer_only(monkeypatch):
    def forward(self, x, workspace, attend, operators):
        if not hasattr(self, "first"):
            attend.keywords["bias"] = DistanceTable(torch.zeros_like(attend.keywords["bias"].table))
        return original(self, x, workspace, attend, operators)

    def build(config, checkpoint, *rest):
        model = from_checkpoint(config, checkpoint, *rest)
        model.layers[0].first = True
        return model

    original, from_checkpoint = network.Layer.forward, network.T5Encoder.from_checkpoint
    monkeypatch.setattr(network.Layer, "forward", forward)
    monkeypatch.setattr(network.T5Encoder, "from_checkpoint", build)


def direction_reversed(monkeypatch):
    monkeypatch.setattr(network, "buckets", lambda *sizes: buckets(*sizes).flip(0))


def last_bucket_starts_one_later(monkeypatch):
    def late(*sizes):
        found = buckets(*sizes)
        return torch.cat((found[:1], found[1:2], found[1:-1], found[-2:-1], found[-1:]))

    monkeypatch.setattr(network, "buckets", late)


def scores_divided_as_usual(monkeypatch):
    needs = Config.attention.fget
    monkeypatch.setattr(Config, "attention", property(lambda config: replace(needs(config), scale=None)))


def rare_letters_not_mapped(monkeypatch):
    letters = tokens.LETTERS + "BOUZ"
    monkeypatch.setattr(tokens, "LETTERS", letters)
    monkeypatch.setattr(tokens, "ALIASES", {})


def end_counted_in_the_mean(monkeypatch):
    def mean(states, batch, operators):
        return operators.mean(states, batch.kept[0], batch.kept[3])

    entry = representations.REPRESENTATIONS["mean"]
    monkeypatch.setitem(representations.REPRESENTATIONS, "mean", replace(entry, compute=mean))


FAULTS = [
    bias_in_one_layer_only,
    direction_reversed,
    last_bucket_starts_one_later,
    scores_divided_as_usual,
    rare_letters_not_mapped,
    end_counted_in_the_mean,
]


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_would_be_noticed(monkeypatch, name, fault):
    fault(monkeypatch)
    assert golden.errors(load(FAMILIES / name), name)["mean"] > 5e-4


# transformers


@pytest.mark.parametrize(("count", "reach"), [(32, 91), (64, 113), (4, 1), (33, 91)])
def test_every_distance_has_transformers_bucket(count, reach):
    from transformers.models.t5.modeling_t5 import T5Attention

    found = buckets(count, 128)
    assert len(found) == 2 * reach + 1
    distances = torch.arange(-3000, 3001)
    expected = T5Attention._relative_position_bucket(distances, num_buckets=count, max_distance=128)
    assert torch.equal(found[distances.clamp(-reach, reach) + reach], expected)


@pytest.mark.parametrize(
    ("sizes", "layers"),
    [(PROTT5_XL, 1), (ANKH_BASE, 2), (ANKH2_LARGE, 1)],
    ids=["ProtT5", "Ankh base", "Ankh2 large"],
)
@pytest.mark.slow
def test_agrees_with_transformers_at_real_sizes(tmp_path, sizes, layers):
    agree(t5_models.write(tmp_path, num_layers=layers, **sizes), [40, 7, 300], range(layers + 1))


@pytest.mark.slow
def test_agrees_with_transformers_at_the_depth_of_ankh_base(tmp_path):
    agree(t5_models.write(tmp_path, num_layers=48, **ANKH_BASE), [40, 7, 300], (24, 48))


@pytest.mark.parametrize("changes", [{"feed_forward_proj": "gated-silu"}, {"relative_attention_max_distance": 20}])
def test_agrees_with_transformers_whatever_config_says(tmp_path, changes):
    agree(t5_models.write(tmp_path, **(t5_models.ANKH | changes)), [40, 7, 150], range(3))


def test_what_config_lacks_is_transformers_default(tmp_path):
    folder = t5_models.write(tmp_path, **t5_models.PROTT5)
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    for key in ("relative_attention_num_buckets", "relative_attention_max_distance", "layer_norm_epsilon"):
        del fields[key]
    del fields["feed_forward_proj"]
    path.write_text(json.dumps(fields))
    agree(folder, [150, 3], range(3))


# Checkpoints


def test_a_decoder_is_neither_needed_nor_kept(tmp_path):
    """Whether the embedding has both names or one, and whichever."""
    records = proteins([30, 31])
    model = load(t5_models.write(tmp_path / "whole", whole=True, **t5_models.ANKH))
    assert model.config.parameter_count == sum(parameter.numel() for parameter in model.parameters())
    tensors = load_file(tmp_path / "whole/model.safetensors")
    encoder = {name: tensor for name, tensor in tensors.items() if name.startswith(("shared", "encoder"))}
    shared = encoder.pop("shared.weight")
    encoder.pop("encoder.embed_tokens.weight", None)
    for name in ("shared.weight", "encoder.embed_tokens.weight"):
        save_file(encoder | {name: shared}, tmp_path / "whole/model.safetensors", {"format": "pt"})
        for a, b in zip(rows(load(tmp_path / "whole"), records), rows(model, records), strict=True):
            assert torch.equal(a, b)


# Half precision


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.005), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("name", GOLDEN)
def test_half_precision_is_as_good_as_it_can_be(name, dtype, tolerance):
    assert golden.errors(load(FAMILIES / name, dtype), name)["mean"] < tolerance


def test_what_leaves_the_range_of_float16_is_kept_or_refused(tmp_path):
    """A stream beyond 65,504 is normal for a T5; where it has to be stored as such, it is an error."""
    folder = t5_models.write(tmp_path, **t5_models.PROTT5)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith(("SelfAttention.o.weight", "DenseReluDense.wo.weight")):
            tensor *= 60_000 / tensor.abs().max()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    records = proteins([30, 31])
    exact, half = load(folder), load(folder, torch.float16)
    assert min(float(values.abs().max()) for values in rows(exact, records, layer=1)) > 65_504
    assert worst(rows(half, records), rows(exact, records)) < 0.02
    assert worst(rows(half, records, "mean", 1), rows(exact, records, "mean", 1)) < 0.02
    with pytest.raises(NotFinite):
        rows(half, records, layer=1)
