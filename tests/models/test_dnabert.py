"""DNABERT: what the original gave is reproduced, and the mistakes that are easy to make would be noticed."""

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import dnabert_reference
import golden
import numpy as np
import pytest
import torch
from dnabert_reference import TINY
from errors import packed_states
from golden import CPU, load, worst
from paths import FAMILIES, REPOSITORY
from refusals import refusal
from safetensors.torch import save_file
from small_run import SmallRun, embed

from seqmill.errors import UserError
from seqmill.inputs.alphabet import NUCLEOTIDE
from seqmill.inputs.fasta import Record, read_records
from seqmill.inputs.sequences import Sequences
from seqmill.kernels import biases
from seqmill.kernels.operators import EAGER
from seqmill.models import hub
from seqmill.models.dnabert import network
from seqmill.models.dnabert.tokens import BytePairTokenizer
from seqmill.models.source import Source

BASES = np.frombuffer(b"ACGT", np.uint8)


class ReleasedTokens:
    """The tokens that the released tokenizer.json, which is not here, makes of the golden sequences."""

    def __init__(self, ids):
        self.ids = ids
        self.counts = np.array([len(tokens) for tokens in self.ids])

    def write(self, first, last, out):
        out[:] = np.concatenate(self.ids[first:last])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The golden checkpoint with a tokenizer."""
    folder = tmp_path_factory.mktemp("dnabert") / "tiny"
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("*.npz"))
    dnabert_reference.write_tokenizer(folder / "tokenizer.json")
    return folder


@pytest.fixture
def released(monkeypatch, expected, records):
    """Golden sequences get their released tokens, whatever the tokenizer of the folder makes of them."""
    names = {record.sequence: record.id for record in records}

    def tokens(tokenizer, sequences):
        letters, offsets = sequences.letters, sequences.offsets
        texts = [letters[start:stop].tobytes() for start, stop in itertools.pairwise(offsets.tolist())]
        return ReleasedTokens([expected[f"{names[text]}/ids"].numpy() for text in texts])

    monkeypatch.setattr(BytePairTokenizer, "tokens", tokens)


def states(model, records, name="residues", layer=-1, max_tokens=4096):
    return packed_states(model, Sequences(records), CPU, max_tokens, layer, name)


def dna(lengths, seed=0):
    random = np.random.default_rng(seed)
    return [Record(f"s{n}", random.choice(BASES, length).tobytes(), None, 0) for n, length in enumerate(lengths)]


@pytest.fixture(scope="module")
def records():
    return list(read_records(FAMILIES / "nucleotides.fasta", NUCLEOTIDE, "replace"))


@pytest.fixture(scope="module")
def expected():
    return golden.values(TINY.name)


def test_what_the_original_gave_is_reproduced(tiny, records, released):
    assert max(golden.errors(load(tiny), TINY.name, records).values()) < 1e-5


@pytest.mark.network
def test_the_released_tokenizer_makes_the_originals_tokens(records, expected):
    """The one file of the released model that this needs; see the marker for when it runs."""
    from huggingface_hub import hf_hub_download

    folder = Path(hf_hub_download("zhihan1996/DNABERT-S", "tokenizer.json")).parent
    tokens = BytePairTokenizer(folder, Source.of(hub.resolve(str(TINY))).config).tokens(Sequences(records))
    for place, row in enumerate(Sequences(records).rows.tolist()):
        out = np.zeros(tokens.counts[place], np.int16)
        tokens.write(place, place + 1, out)
        assert out.tolist() == expected[f"{records[row].id}/ids"].tolist()


def test_the_reference_of_the_other_tests_is_the_original(records, expected):
    reference = dnabert_reference.reference(TINY)
    tokens = [expected[f"{record.id}/ids"].tolist() for record in records]
    found = [reference(b"", 3, ids).mean(0, keepdim=True) for ids in tokens]
    assert worst(found, [expected[f"{record.id}/mean_all"][None] for record in records]) < 1e-5


def test_real_sizes_agree_with_the_reference(tmp_path):
    """Two layers of DNABERT-S's own width, with twelve heads."""
    folder = dnabert_reference.write(tmp_path / "model", 768, 2, 12, 3072)
    reference, records = dnabert_reference.reference(folder), dna([700, 90, 3])
    assert worst(states(load(folder), records), [reference(record.sequence, 2)[1:-1] for record in records]) < 1e-5


def test_a_language_models_prefix_and_head_do_no_harm(tmp_path, tiny, records):
    """As DNABERT-2's checkpoint has them."""
    tensors = torch.load(TINY / "pytorch_model.bin", weights_only=True)
    tensors = {f"bert.{name}": tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(tiny / name, tmp_path)
    save_file({**tensors, "cls.predictions.bias": torch.zeros(4096)}, tmp_path / "model.safetensors")
    assert all(map(torch.equal, states(load(tmp_path), records), states(load(tiny), records)))


@pytest.mark.parametrize("length", [pytest.param(20_000), pytest.param(100_000, marks=pytest.mark.slow)])
def test_long_contigs_are_embedded_whole(tiny, length):
    """Neither a table of distances nor a mask limits them; every token is there, and near ones do not depend on far ones."""
    model, (record,) = load(tiny), dna([length])
    (found,) = states(model, [record], max_tokens=1_000)
    assert torch.isfinite(found).all()
    tokens = model.tokenizer.tokens(Sequences([record]))
    assert len(found) == tokens.counts[0] - 2 > length / 5.5
    assert tokens.starts(0, 1)[-1] < length


# Mistakes that are easy to make: each must show


def test_what_is_too_long_for_a_shard_has_its_id_in_the_message(tiny, tmp_path):
    """Its length in tokens is known when the shard, whose records have hashes for ids, is embedded."""
    fasta = tmp_path / "contigs.fasta"
    fasta.write_text("".join(f">{record.id}\n{record.sequence.decode()}\n" for record in dna([40, 900, 60])))
    run = SmallRun(tmp_path / "run", 1)
    run.shard(tiny, fasta)
    message = refusal(embed, tiny, tmp_path / "run/shards/0.fasta", run.parts[0], long="error", max_length=100)
    assert re.match(r"'s1' has \d+ tokens, and 100 is the most", message)


def slopes_beyond_eight_heads(patch):
    eight = biases.alibi_slopes(4)
    patch.setattr(network, "alibi_slopes", lambda heads: torch.cat((eight, eight[: heads - 4])))


def token_types_left_out(patch):
    take = network.Checkpoint.take

    def without(checkpoint, key, *rest):
        return take(checkpoint, key, *rest) * (0 if "token_type" in key else 1)

    patch.setattr(network.Checkpoint, "take", without)


def row_0_zeroed(patch):
    take = network.Checkpoint.take

    def zeroed(checkpoint, key, *rest):
        tensor = take(checkpoint, key, *rest)
        if "word_embeddings" in key:
            tensor[0] = 0
        return tensor

    patch.setattr(network.Checkpoint, "take", zeroed)


def gates_halves_swapped(patch):
    swapped = EAGER._replace(gate=lambda x, kind: EAGER.gate(torch.cat(x.chunk(2, -1)[::-1], -1), kind))
    patch.setattr("seqmill.models.loading.EAGER", swapped)


def gelu_approximated(patch):
    patch.setattr("seqmill.models.loading.EAGER", EAGER._replace(gate=lambda x, _: EAGER.gate(x, "gelu_tanh")))


def biases_left_out(patch):
    patch.setattr(
        "seqmill.models.loading.EAGER",
        EAGER._replace(add_norm=lambda x, y, bias, norm: EAGER.add_norm(x, y, torch.zeros_like(bias), norm)),
    )


MISTAKES = (
    slopes_beyond_eight_heads,
    token_types_left_out,
    row_0_zeroed,
    gates_halves_swapped,
    gelu_approximated,
    biases_left_out,
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_would_be_noticed(monkeypatch, tiny, records, released, mistake):
    mistake(monkeypatch)
    assert max(golden.errors(load(tiny), TINY.name, records).values()) > 1e-4


# Models that are none


def altered(folder, fields=None, tensors=None):
    """A copy of the tiny checkpoint with other fields and tensors; None removes one."""
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("*.npz", "*.bin"))
    config = json.loads((TINY / "config.json").read_text()) | (fields or {})
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    found = torch.load(TINY / "pytorch_model.bin", weights_only=True) | (tensors or {})
    save_file({k: v.contiguous() for k, v in found.items() if v is not None}, folder / "model.safetensors")
    dnabert_reference.write_tokenizer(folder / "tokenizer.json")
    return folder


def test_a_plain_bert_is_refused_with_the_reason(tmp_path):
    positions = {"embeddings.position_embeddings.weight": torch.zeros(512, 96)}
    folder = altered(tmp_path / "bert", {"alibi_starting_size": None}, positions)
    with pytest.raises(UserError, match="is a BERT, but not a DNABERT-2 or DNABERT-S: it has position embeddings"):
        hub.resolve(str(folder))


def test_a_bert_without_gates_is_refused_with_the_reason(tmp_path):
    folder = altered(tmp_path / "bert", None, {f"encoder.layer.{n}.mlp.gated_layers.weight": None for n in range(3)})
    with pytest.raises(UserError, match="is a BERT, but not a DNABERT-2 or DNABERT-S: it has no gated layers"):
        load(folder)


def test_a_plain_bert_that_claims_to_have_alibi_is_refused_when_it_is_loaded(tmp_path):
    folder = altered(tmp_path / "bert", None, {"embeddings.position_embeddings.weight": torch.zeros(512, 96)})
    with pytest.raises(UserError, match="is a BERT, but not a DNABERT-2 or DNABERT-S: it has position embeddings"):
        load(folder)


def test_planning_recognises_it_without_torch():
    program = f"""
import sys
from pathlib import Path
from seqmill.models import registry
assert registry.of_folder(Path({str(TINY)!r})).name == "DNABERT"
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": str(REPOSITORY / "workflow")})


def test_a_config_that_leaves_out_what_does_not_matter_is_taken(tmp_path, tiny, records):
    folder = altered(tmp_path / "m", {"model_type": None, "pad_token_id": None, "hidden_act": "relu"})
    assert all(map(torch.equal, states(load(folder), records), states(load(tiny), records)))


@pytest.mark.parametrize("wrong", [{"num_attention_heads": 7}, {"hidden_size": 0}, {"layer_norm_eps": "small"}])
def test_senseless_sizes_are_one_sentence(tmp_path, wrong):
    with pytest.raises(UserError, match="lacks sizes of the model or has wrong ones; get it again"):
        Source.of(hub.resolve(str(altered(tmp_path / "m", wrong))))


def test_tensors_that_do_not_fit_are_one_sentence(tmp_path):
    for fields in ({"num_hidden_layers": 2}, {"num_hidden_layers": 4}, {"intermediate_size": 80}):
        folder = altered(tmp_path / str(next(iter(fields.values()))), fields)
        with pytest.raises(UserError, match=r"the weights do not fit config\.json|lacks the tensor"):
            load(folder)


def test_no_code_of_the_folder_is_run(tmp_path, records):
    folder = altered(tmp_path / "m")
    for name in ("bert_layers.py", "configuration_bert.py", "__init__.py"):
        (folder / name).write_text("raise SystemExit('executed')\n")
    assert len(states(load(folder), records)) == len(records)
