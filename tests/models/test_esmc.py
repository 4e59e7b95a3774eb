"""The packed ESM-C forward against what the authors' code computed, and against transformers' EsmcModel, in float32.

Compared by relative L2 of the worst residue.
"""

import io
import json
import re
import shutil
from pathlib import Path

import golden
import numpy as np
import pytest
import torch
from golden import load, proteins, rows, worst
from paths import FAMILIES
from refusals import load_model, refusal
from safetensors.torch import load_file, save_file

from seqmill.inputs.fasta import Record
from seqmill.inputs.sequences import Sequences
from seqmill.kernels import operators
from seqmill.models import hub, loading, rotary
from seqmill.models.checkpoint import Checkpoint
from seqmill.models.esmc import config as esmc
from seqmill.models.esmc import layouts
from seqmill.models.source import Source

GOLDEN = ["esmc-native-tiny", "esmc-hf-tiny"]
# As the published sizes, with fewer layers: layers, width, heads, width within the feed-forward.
SIZES = {"300M": (2, 960, 15, 2560), "600M": (2, 1152, 18, 3072), "6B": (1, 2560, 40, 6912)}


def transformers_model(layers: int, width: int, heads: int, expanded: int, seed: int = 0):
    """Random weights, gains not one and biases not zero, so that a forgotten one shows."""
    from transformers import EsmcConfig, EsmcForMaskedLM

    sizes = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    torch.manual_seed(seed)
    model = EsmcForMaskedLM(EsmcConfig(**sizes, intermediate_size=expanded)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@torch.inference_mode()
def expected(model, record: Record, layer: int = -1) -> torch.Tensor:
    """transformers' residue states of one sequence by itself."""
    ids = torch.tensor([[esmc.TOKENS.index(token) for token in ("<cls>", *record.sequence.decode(), "<eos>")]])
    output = model.esmc(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    return output.hidden_states[layer][0, 1:-1]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """A golden checkpoint's."""
    file = folder / "model.safetensors"
    return load_file(file) if file.exists() else torch.load(folder / "pytorch_model.bin", weights_only=True)


def transformer_engine(name: str) -> str:
    """Today's name in EvolutionaryScale's layout as that of Biohub's first release."""
    changes = {
        r"layernorm_qkv\.0\.(\w+)$": r"layernorm_qkv.layer_norm_\1",
        r"layernorm_qkv\.1\.weight$": "layernorm_qkv.weight",
        r"ffn\.0\.(\w+)$": r"ffn.layer_norm_\1",
        r"ffn\.1\.weight$": "ffn.fc1_weight",
        r"ffn\.3\.weight$": "ffn.fc2_weight",
    }
    for old, new in changes.items():
        name = re.sub(old, new, name)
    return name.replace("sequence_head", "lm_head") if name.startswith("sequence_head") else f"esmc.{name}"


def same_bits(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(rows(a, proteins()), rows(b, proteins()), strict=True))


@pytest.mark.parametrize("name", GOLDEN)
def test_agrees_with_the_authors_code(name):
    assert golden.error(load(FAMILIES / name), name) < 1e-5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.slow
def test_agrees_with_transformers_at_real_sizes(tmp_path, size):
    reference = transformers_model(*SIZES[size])
    reference.save_pretrained(tmp_path)
    model, records = load(tmp_path), [Record("a", b"MKTAYIAKQRQISFVKSHFSRXBUZO", None, 0), *proteins()[:2]]
    for layer in range(model.config.layer_count + 1):
        found = rows(model, records, layer=layer)
        assert worst(found, [expected(reference, record, layer) for record in records]) < 1e-5


def test_tokens_are_those_of_the_authors():
    ids = np.load(FAMILIES / "esmc-hf-tiny/expected.npz")
    for record in proteins():
        batch = esmc.tokenizer().tokens(Sequences([record]))
        out = np.empty(batch.counts[0], np.uint8)
        batch.write(0, 1, out)
        assert out.tolist() == ids[f"{record.id}/ids"].tolist()


# Layouts


def test_the_first_layout_of_biohub_is_the_same_model(tmp_path):
    """With what Transformer Engine adds to its weights, be it a tensor, bytes or nothing."""
    shutil.copy(FAMILIES / "esmc-native-tiny/config.json", tmp_path)
    renamed = {transformer_engine(name): value for name, value in tensors(FAMILIES / "esmc-native-tiny").items()}
    assert "esmc.transformer.blocks.3.attn.layernorm_qkv.layer_norm_bias" in renamed
    extra = {"esmc.transformer.blocks.0.ffn._extra_state": None}
    extra["esmc.transformer.blocks.1.ffn._extra_state"] = torch.zeros(3, dtype=torch.uint8)
    extra["esmc.transformer.blocks.2.ffn._extra_state"] = io.BytesIO(b"scales")
    torch.save(renamed | extra, tmp_path / "pytorch_model.bin")
    original = load(FAMILIES / "esmc-native-tiny")
    assert same_bits(load(tmp_path), original)
    (tmp_path / "pytorch_model.bin").unlink()
    save_file(renamed | {"esmc.transformer.blocks.1.ffn._extra_state": torch.zeros(0)}, tmp_path / "model.safetensors")
    assert same_bits(load(tmp_path), original)


def test_config_of_the_first_release_of_biohub(tmp_path):
    """Its spelling, without a width within the feed-forward."""
    native = json.loads((FAMILIES / "esmc-native-tiny/config.json").read_text())
    spelt = {"model_type": "esmc", "d_model": 96, "n_heads": 6, "n_layers": 4, "vocab_size": 64}
    assert esmc.Config.read(spelt, "x", dict) == esmc.Config.read(native, "x", dict)
    for _, width, heads, expanded in SIZES.values():
        assert esmc.Config.read({**spelt, "d_model": width, "n_heads": heads}, "x", dict).expanded == expanded


def test_the_prefix_may_be_missing(tmp_path):
    shutil.copy(FAMILIES / "esmc-hf-tiny/config.json", tmp_path)
    original = tensors(FAMILIES / "esmc-hf-tiny")
    bare = {name.removeprefix("esmc."): value for name, value in original.items() if name.startswith("esmc.")}
    save_file(bare, tmp_path / "model.safetensors")
    assert same_bits(load(tmp_path), load(FAMILIES / "esmc-hf-tiny"))


def evolutionaryscale(model) -> dict[str, torch.Tensor]:
    """A model of transformers in EvolutionaryScale's layout."""
    theirs, found = model.esmc.state_dict(), {}
    for ours, (name, *_) in layouts.EVOLUTIONARYSCALE.items():
        for number in range(model.config.num_hidden_layers) if "*" in ours else ("",):
            for kind in ("weight", "bias"):
                parts = [f"{part.replace('*', str(number))}.{kind}" for part in layouts.TRANSFORMERS[ours]]
                if parts[0] in theirs:
                    found[f"{name.replace('*', str(number))}.{kind}"] = torch.cat([theirs[part] for part in parts])
    return found


@pytest.mark.parametrize("config", [None, "{}", '{"library": "esm"}'])
@pytest.mark.parametrize("place", ["", "data/weights"])
def test_where_config_json_tells_nothing_the_tensors_tell(tmp_path, place, config):
    """As EvolutionaryScale publishes it, heads of 64."""
    reference = transformers_model(2, 128, 2, 512)
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    torch.save(evolutionaryscale(reference), tmp_path / place / "esmc_300m_2024_12_v0.pth")
    model, records = load(tmp_path), proteins()[:3]
    assert model.config == esmc.Config(2, 128, 2, 512, release=esmc.EVOLUTIONARYSCALE)
    assert worst(rows(model, records), [expected(reference, record) for record in records]) < 1e-5


@pytest.mark.parametrize(
    ("width", "release", "says"),
    [
        (960, esmc.BIOHUB, "MIT (Biohub's release)"),
        (1152, esmc.BIOHUB, "MIT (Biohub's release)"),
        (960, esmc.EVOLUTIONARYSCALE, "EvolutionaryScale Cambrian Open License"),
        (1152, esmc.EVOLUTIONARYSCALE, "EvolutionaryScale Cambrian Non-Commercial License"),
        (128, esmc.EVOLUTIONARYSCALE, "EvolutionaryScale's"),
    ],
)
def test_the_licence_is_that_of_the_release(width, release, says):
    assert esmc.licence(esmc.Config(2, width, width // 64, 512, release=release), "any/name") == says


# Each breaks one thing that the comparison with the authors' code must notice.


def replaced(monkeypatch, **steps):
    monkeypatch.setattr(loading, "EAGER", operators.EAGER._replace(**steps))


def no_residual_scaling(monkeypatch):
    monkeypatch.setattr(esmc.Config, "residual_divisor", 1.0)


def norms_of_each_head(monkeypatch):
    def norm_rotate(x, query_norm, key_norm, cos, sin):
        for part, norm in enumerate((query_norm, key_norm)):
            centred = x[:, part] - x[:, part].mean(-1, keepdim=True)
            x[:, part] = centred / (centred.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
            x[:, part] *= norm.weight.view(x.shape[-2:])
        return operators.rotate(x, cos, sin)

    replaced(monkeypatch, norm_rotate=norm_rotate)


def no_norms(monkeypatch):
    replaced(monkeypatch, norm_rotate=lambda x, query_norm, key_norm, cos, sin: operators.rotate(x, cos, sin))


def halves_of_the_gate_swapped(monkeypatch):
    def gate(x, activation):
        return operators.gate(torch.cat(x.chunk(2, dim=-1)[::-1], dim=-1), activation)

    replaced(monkeypatch, gate=gate)


def rotary_of_another_base(monkeypatch):
    original = rotary.inverse_frequencies
    monkeypatch.setattr(rotary, "inverse_frequencies", lambda head_dim, _: original(head_dim, 500_000.0))


def a_token_dropout_scale(monkeypatch):
    original = Checkpoint.take
    factors = {"embed_tokens.weight": 0.88, "embed.weight": 0.88}
    monkeypatch.setattr(Checkpoint, "take", lambda self, key, *args: original(self, key, *args) * factors.get(key, 1.0))


def no_last_norm(monkeypatch):
    def layer_norm(x, norm, shift=None):
        return x.clone() if norm.bias is None else operators.layer_norm(x, norm, shift)

    replaced(monkeypatch, layer_norm=layer_norm)


@pytest.mark.parametrize(
    "fault",
    [
        no_residual_scaling,
        norms_of_each_head,
        no_norms,
        halves_of_the_gate_swapped,
        rotary_of_another_base,
        a_token_dropout_scale,
        no_last_norm,
    ],
)
def test_faults_would_be_noticed(monkeypatch, fault):
    fault(monkeypatch)
    assert golden.error(load(FAMILIES / "esmc-hf-tiny"), "esmc-hf-tiny") > 1e-3


# Bad models


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without(folder, name):
    path = folder / "model.safetensors"
    save_file({key: value for key, value in load_file(path).items() if key != name}, path)


def alone(folder, content, name="esmc.pth"):
    """Only a file of EvolutionaryScale's form."""
    for file in ("config.json", "model.safetensors"):
        (folder / file).unlink()
    torch.save(content, folder / name)


NATIVE = FAMILIES / "esmc-native-tiny"
NAMES = ("embed.weight", "transformer.blocks.0.attn.layernorm_qkv.1.weight")
BAD_MODELS = {
    "another vocabulary": (lambda f: edit(f, vocab_size=33), "but not a published ESM-C"),
    "another activation": (lambda f: edit(f, hidden_act="gelu"), "but not a published ESM-C"),
    "stretched positions": (
        lambda f: edit(f, rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}),
        "but not a published ESM-C",
    ),
    "positions that are a list": (lambda f: edit(f, rope_parameters=[1]), "but not a published ESM-C"),
    "no sizes": (lambda f: edit(f, hidden_size=None), "lacks sizes of the model"),
    "heads that do not fit": (lambda f: edit(f, num_attention_heads=7), "lacks sizes of the model"),
    "heads of an odd size": (lambda f: edit(f, num_attention_heads=32), "lacks sizes of the model"),
    "text for a size": (lambda f: edit(f, num_hidden_layers="4"), "lacks sizes of the model"),
    "10^12 layers": (lambda f: edit(f, num_hidden_layers=10**12), "lacks sizes of the model"),
    "no base": (lambda f: edit(f, rope_parameters={"rope_theta": None}), "lacks sizes of the model"),
    "more layers than weights": (lambda f: edit(f, num_hidden_layers=5), "lacks the tensor layers.4."),
    "fewer layers than weights": (
        lambda f: edit(f, num_hidden_layers=3),
        "the weights do not fit config.json, layers.3.",
    ),
    "another width": (lambda f: edit(f, intermediate_size=512), "the weights do not fit config.json"),
    "a tensor is missing": (lambda f: without(f, "esmc.layers.2.self_attn.k_norm.weight"), "lacks the tensor layers.2"),
    "the embedding is missing": (lambda f: without(f, "esmc.embed_tokens.weight"), "lacks the tensor embed_tokens"),
    "no config.json, heads not of 64": (lambda f: alone(f, tensors(NATIVE)), "its tensors do not have the sizes"),
    "no config.json, no sizes": (
        lambda f: alone(f, dict.fromkeys(NAMES, torch.zeros(3))),
        "its tensors do not have the sizes",
    ),
    "no config.json, another model": (lambda f: alone(f, {"a": torch.zeros(3)}), "has no config.json"),
    "extra state that is none": (
        lambda f: alone(f, tensors(NATIVE) | {"extra": None}),
        "something else than named tensors",
    ),
}


@pytest.mark.parametrize(("damage", "says"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_a_bad_model_is_refused(tmp_path, damage, says):
    folder = Path(shutil.copytree(FAMILIES / "esmc-hf-tiny", tmp_path / "model"))
    damage(folder)
    sentence = refusal(load_model, folder)
    assert sentence.startswith(f"model {folder}: ")
    assert says in sentence


def test_sizes_are_read_from_the_checkpoint_once_it_is_recognised():
    assert Source.of(hub.resolve(str(FAMILIES / "esmc-hf-tiny"))).config == esmc.Config(4, 96, 6, 256)
