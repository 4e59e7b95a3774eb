"""The packed ESM-1b and ESM-1v forward against what the authors' code computed, and against transformers' EsmModel.

In float32, compared by relative L2 of the worst residue.
"""

import json
import shutil
from functools import partial
from pathlib import Path

import golden
import pytest
import torch
from golden import load, proteins, rows, worst
from paths import FAMILIES
from refusals import load_model, refusal

from seqmill.inputs.fasta import Record
from seqmill.models import hub, rotary
from seqmill.models.esm1 import family as esm1
from seqmill.models.esm1 import network as esm1_network
from seqmill.models.esm1.network import ESM1
from seqmill.models.esm2 import family as esm2
from seqmill.models.esm2 import network as esm2_network
from seqmill.models.esm2.config import TOKENS
from seqmill.models.source import Source

TINY = FAMILIES / "esm1b-tiny"


def transformers_model(layers: int = 2, norm_before: bool = True, **sizes: int):
    """Random weights; by default of the published width, with fewer layers. Gains not one, so that a forgotten one shows."""
    from transformers import EsmConfig, EsmForMaskedLM

    sizes = {"hidden_size": 1280, "num_attention_heads": 20, "intermediate_size": 5120, **sizes}
    config = EsmConfig(
        vocab_size=33,
        pad_token_id=1,
        mask_token_id=32,
        num_hidden_layers=layers,
        position_embedding_type="absolute",
        emb_layer_norm_before=norm_before,
        token_dropout=True,
        layer_norm_eps=1e-5,
        **sizes,
    )
    torch.manual_seed(0)
    model = EsmForMaskedLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name.lower() or name.endswith("bias"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@torch.inference_mode()
def expected(model, record: Record, layer: int = -1) -> torch.Tensor:
    """transformers' residue states of one sequence by itself."""
    ids = torch.tensor([[TOKENS.index(token) for token in ("<cls>", *record.sequence.decode(), "<eos>")]])
    output = model.esm(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    return output.hidden_states[layer][0, 1:-1]


def test_agrees_with_the_authors_code():
    assert golden.error(load(TINY), TINY.name) < 1e-5


@pytest.mark.parametrize("norm_before", [True, False], ids=["ESM-1b", "ESM-1v"])
def test_agrees_with_transformers_at_real_sizes(tmp_path, norm_before):
    reference = transformers_model(norm_before=norm_before)
    reference.save_pretrained(tmp_path)
    model, records = load(tmp_path), proteins()[:3]
    assert model.config.max_tokens == 1024
    for layer in range(3):
        found = rows(model, records, layer=layer)
        assert worst(found, [expected(reference, record, layer) for record in records]) < 1e-5


def test_the_longest_sequence_is_one_token_for_each_position(tmp_path):
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 102}
    reference = transformers_model(**sizes)
    reference.save_pretrained(tmp_path)
    longest = Record("longest", (b"MKTAYIAKQR" * 10)[:98], None, 0)
    model = load(tmp_path)
    assert Source.of(hub.resolve(str(tmp_path))).alphabet.longest == len(longest.sequence)
    assert worst(rows(model, [longest]), [expected(reference, longest)]) < 1e-5


def test_padding_may_be_longer_than_a_sequence():
    """A filled batch has up to a whole batch of it."""
    from seqmill.engine.batching import filler

    model = load(TINY)
    (states,) = model(filler(3_000, model.tokenizer), [3]).values()
    assert states.isfinite().all()


def test_positions_tell_the_families_apart():
    fields = json.loads((TINY / "config.json").read_text())
    assert esm1.accepts(fields, set)
    assert not esm2.accepts(fields, set)
    rotary_fields = fields | {"position_embedding_type": "rotary"}
    assert esm2.accepts(rotary_fields, set)
    assert not esm1.accepts(rotary_fields, set)


# Each breaks one thing that the comparison with the authors' code must notice.


def no_token_dropout_scale(monkeypatch):
    monkeypatch.setattr(esm2_network, "TOKEN_DROPOUT_SCALE", 1.0)


def positions_scaled_too(monkeypatch):
    original = ESM1.embeddings
    scale, key = esm2_network.TOKEN_DROPOUT_SCALE, "positions"
    monkeypatch.setattr(ESM1, "embeddings", lambda *args: (found := original(*args)) | {key: found[key] * scale})


def positions_from_0(monkeypatch):
    monkeypatch.setattr(esm1_network, "FIRST_POSITION", 0)


def no_positions(monkeypatch):
    monkeypatch.setattr(ESM1, "embed", lambda self, batch: self.embedding_norm(esm2_network.Encoder.embed(self, batch)))


def no_embedding_norm(monkeypatch):
    def embed(self, batch):
        self.embedding_norm = None
        return original(self, batch)

    original = ESM1.embed
    monkeypatch.setattr(ESM1, "embed", embed)


def rotary_positions_besides(monkeypatch):
    def rotation(self, batch):
        cos, sin = rotary.tables(batch.positions(), rotary.inverse_frequencies(self.config.head_dim, 10_000.0))
        return partial(self.kernels.operators.rotate, cos=cos, sin=sin)

    monkeypatch.setattr(ESM1, "rotation", rotation)


@pytest.mark.parametrize(
    "fault",
    [
        no_token_dropout_scale,
        positions_scaled_too,
        positions_from_0,
        no_positions,
        no_embedding_norm,
        rotary_positions_besides,
    ],
)
def test_faults_would_be_noticed(monkeypatch, fault):
    fault(monkeypatch)
    assert golden.error(load(TINY), TINY.name) > 1e-3


# Bad models


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without(folder, name):
    path = folder / "pytorch_model.bin"
    tensors = torch.load(path, weights_only=True)
    del tensors[name]
    torch.save(tensors, path)


def with_a_bias_token(folder):
    """As the attention of ESM-1 has it."""
    path = folder / "pytorch_model.bin"
    tensors = torch.load(path, weights_only=True)
    torch.save(tensors | {"esm.encoder.layer.0.attention.self.bias_k": torch.zeros(1, 1, 96)}, path)


NEITHER = "neither an ESM-2, an ESM-1b nor an ESM-1v"
BAD_MODELS = {
    "ESM-1's vocabulary": (lambda f: edit(f, vocab_size=35), NEITHER),
    "ESM-1's bias token": (with_a_bias_token, "the weights do not fit config.json"),
    "another padding": (lambda f: edit(f, pad_token_id=0), NEITHER),
    "another activation": (lambda f: edit(f, hidden_act="relu"), NEITHER),
    "ESMFold": (lambda f: edit(f, is_folding_model=True), NEITHER),
    "no positions": (lambda f: edit(f, max_position_embeddings=2), "lacks sizes of the model"),
    "text for positions": (lambda f: edit(f, max_position_embeddings="1026"), "lacks sizes of the model"),
    "other positions than weights": (
        lambda f: edit(f, max_position_embeddings=514),
        "position_embeddings.weight for one",
    ),
    "text for a norm": (lambda f: edit(f, emb_layer_norm_before="yes"), "lacks sizes of the model"),
    "heads that do not fit": (lambda f: edit(f, num_attention_heads=7), "lacks sizes of the model"),
    "a norm that config.json lacks": (
        lambda f: edit(f, emb_layer_norm_before=False),
        "do not fit config.json, embeddings.layer_norm.weight for one",
    ),
    "no norm": (lambda f: without(f, "esm.embeddings.layer_norm.bias"), "lacks the tensor embeddings.layer_norm.bias"),
    "no position embedding": (
        lambda f: without(f, "esm.embeddings.position_embeddings.weight"),
        "lacks the tensor embeddings.position_embeddings.weight",
    ),
    "fewer layers than weights": (lambda f: edit(f, num_hidden_layers=2), "the weights do not fit config.json"),
}


@pytest.mark.parametrize(("damage", "says"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_a_bad_model_is_refused(tmp_path, damage, says):
    folder = Path(shutil.copytree(TINY, tmp_path / "model"))
    damage(folder)
    sentence = refusal(load_model, folder)
    assert sentence.startswith(f"model {folder}: ")
    assert says in sentence


def test_a_missing_norm_is_none(tmp_path):
    """As transformers writes the default."""
    folder = Path(shutil.copytree(TINY, tmp_path / "model"))
    edit(folder, emb_layer_norm_before=None)
    assert Source.of(hub.resolve(str(folder))).config.emb_layer_norm_before is False
