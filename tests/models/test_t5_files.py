"""What T5 folders hold besides good weights: tokenizer files of every kind, and models that are refused in a sentence."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import t5_models
from golden import load, rows, worst
from refusals import load_model, refusal
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceTrainer

from seqmill.models.t5 import family, tokens
from seqmill.models.t5.config import Config
from seqmill.models.tokenizers import LetterTokenizer

# Another order than ProtT5's, so that it shows where the ids come from.
ORDER = "XZUOBCWHMYNQFKPITDERSVGLA"
SPECIAL = ["<pad>", "</s>", "<unk>"]


def spiece(letters: str) -> bytes:
    """A SentencePiece model with a piece a letter, each after a blank, as ProtT5's."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(" ".join([letter] * (99 - n)) for n, letter in enumerate(letters)),
        model_writer=model,
        model_type="word",
        vocab_size=len(letters) + 3,
        **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "minloglevel": 2},
        normalization_rule_name="identity",
    )
    return model.getvalue()


def unigram(pieces: list[str], added: dict[str, int] | None = None) -> str:
    """A tokenizer.json as the tokenizers library writes it."""
    vocabulary = [[piece, -float(n)] for n, piece in enumerate(pieces)]
    added_tokens = [{"id": token_id, "content": token} for token, token_id in (added or {}).items()]
    return json.dumps({"added_tokens": added_tokens, "model": {"type": "Unigram", "vocab": vocabulary}})


BLANKED = [*SPECIAL, *(f"▁{letter}" for letter in ORDER)]
BARE = [*SPECIAL, *ORDER]


def tokenizer(folder: Path, vocab_size: int = 128) -> LetterTokenizer:
    return tokens.tokenizer(folder, SimpleNamespace(vocab_size=vocab_size))


def encoded(found: LetterTokenizer, sequence: bytes) -> list[int]:
    return [*found.before, *found.table[np.frombuffer(sequence, np.uint8)].tolist(), *found.after]


# Tokens


@pytest.mark.parametrize(
    "write",
    [
        lambda f: (f / "spiece.model").write_bytes(spiece(ORDER)),
        lambda f: (f / "tokenizer.json").write_text(unigram(BLANKED)),
        lambda f: (f / "tokenizer.json").write_text(unigram(BARE)),
        # Both forms of each letter: the one after a blank is what a model of letters saw.
        lambda f: (f / "tokenizer.json").write_text(unigram([*BLANKED, *ORDER])),
        lambda f: (f / "tokenizer.json").write_text(
            json.dumps({"model": {"type": "WordLevel", "vocab": {piece: n for n, piece in enumerate(BARE)}}})
        ),
    ],
    ids=["spiece.model", "unigram", "without blanks", "with and without blanks", "word level"],
)
def test_letters_have_the_ids_of_the_folders_files(tmp_path, write):
    write(tmp_path)
    expected = {letter: 3 + n for n, letter in enumerate(ORDER)} | dict.fromkeys("UZOB", 3)
    assert encoded(tokenizer(tmp_path), b"MKUZOBXA") == [*(expected[letter] for letter in "MKUZOBXA"), 1]


def test_sentencepiece_own_file_goes_before_copies_of_it(tmp_path):
    (tmp_path / "spiece.model").write_bytes(spiece(ORDER))
    (tmp_path / "tokenizer.json").write_text(unigram([*SPECIAL, *(f"▁{letter}" for letter in ORDER[::-1])]))
    assert encoded(tokenizer(tmp_path), b"X") == [3, 1]


@pytest.mark.parametrize("vocab_size", [128, 144])
def test_a_folder_without_files_has_the_tokens_of_protT5(tmp_path, vocab_size):
    found = tokenizer(tmp_path, vocab_size)
    assert encoded(found, b"ALGVSREDTIPKFQNYMHWCX") == [*range(3, 24), 1]
    assert (found.leading, found.trailing, found.padding) == (0, 1, 0)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (None, "", 149),
        ("added_tokens.json", {"<fold2AA>": 149, "<AA2fold>": 148}, 148),
        ("tokenizer_config.json", {"added_tokens_decoder": {"148": {"content": "<AA2fold>"}}}, 148),
        ("tokenizer_config.json", {"model_max_length": 512}, 149),
    ],
)
def test_prostt5_is_told_that_amino_acids_follow(tmp_path, name, content, expected):
    (tmp_path / "spiece.model").write_bytes(spiece(ORDER))
    if name:
        (tmp_path / name).write_text(json.dumps(content))
    found = tokenizer(tmp_path, 150)
    assert encoded(found, b"X") == [expected, 3, 1]
    assert (found.leading, found.trailing) == (1, 1)


def test_ankh3_is_told_that_embeddings_are_wanted(tmp_path):
    (tmp_path / "tokenizer.json").write_text(unigram(BARE, {"[NLU]": 200, "[S2S]": 201}))
    assert encoded(tokenizer(tmp_path, 256), b"X") == [200, 3, 1]


def test_prostt5_agrees_with_transformers(tmp_path):
    folder = t5_models.write(tmp_path, **(t5_models.PROTT5 | {"vocab_size": 150}))
    records, reference = t5_models.proteins([30, 1]), t5_models.reference(folder, (149,))
    expected = [reference(record.sequence, -1)[1:-1] for record in records]
    assert worst(rows(load(folder), records), expected) < 1e-5


LACKS = "its tokenizer's files have no proper number for"
BAD_FILES = {
    "empty spiece.model": ("spiece.model", b"", "its spiece.model cannot be used (it is empty)"),
    "pointer of git-lfs": ("spiece.model", b"version https://git-lfs.github.com/spec/v1\n", "its spiece.model cannot"),
    "truncated spiece.model": ("spiece.model", spiece(ORDER)[:100], "its spiece.model cannot be used"),
    "spiece.model of other letters": ("spiece.model", spiece("ABC"), f"{LACKS} D"),
    "empty tokenizer.json": ("tokenizer.json", b"", "its tokenizer.json cannot be used"),
    "a list": ("tokenizer.json", b"[]", "its tokenizer.json cannot be used"),
    "no model": ("tokenizer.json", b"{}", "its tokenizer.json cannot be used"),
    "null for pieces": ("tokenizer.json", b'{"model": {"vocab": null}}', "its tokenizer.json cannot be used"),
    "no pieces": ("tokenizer.json", b'{"model": {"vocab": []}}', f"{LACKS} A"),
    "deeply nested": ("tokenizer.json", b"[" * 100_000, "its tokenizer.json cannot be used"),
    "no text": ("added_tokens.json", b"\xff\x80", "its added_tokens.json cannot be used"),
    "text for an id": ("added_tokens.json", b'{"<AA2fold>": "x"}', f"{LACKS} <AA2fold>"),
    "id beyond the embedding": ("added_tokens.json", b'{"<AA2fold>": 150}', f"{LACKS} <AA2fold>"),
    "negative id": ("added_tokens.json", b'{"<AA2fold>": -1}', f"{LACKS} <AA2fold>"),
    "id of a letter": ("added_tokens.json", b'{"<AA2fold>": 3}', f"{LACKS} <AA2fold>"),
    "words for ids": (
        "tokenizer_config.json",
        b'{"added_tokens_decoder": {"x": {"content": "y"}}}',
        "its tokenizer_con",
    ),
}


@pytest.mark.parametrize(("name", "content", "says"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_tokenizer_file_is_refused(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    sentence = refusal(tokenizer, tmp_path)
    assert sentence.startswith(f"model {tmp_path}: {says}")


def test_a_folder_without_files_of_an_unknown_vocabulary_is_refused(tmp_path):
    assert "has neither spiece.model nor tokenizer.json" in refusal(tokenizer, tmp_path, 256)


# Models


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop_from_config(folder, key):
    path = folder / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))


def edit_tensors(folder, edit):
    path = folder / "model.safetensors"
    save_file(edit(load_file(path)), path, {"format": "pt"})


def without(part):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


def bias_in_every_layer(tensors):
    """As UMT5 has it."""
    (name,) = [name for name in tensors if "relative_attention_bias" in name]
    return tensors | {name.replace("block.0", "block.1"): tensors[name].clone()}


FIT = "the weights do not fit config.json"
SIZES = "lacks sizes of the model or has wrong ones"
BAD_MODELS = {
    "decoder only": (lambda f: edit_tensors(f, without("encoder")), "holds no encoder of a T5"),
    "no embedding": (lambda f: edit_tensors(f, without("shared")), "lacks the tensor shared.weight"),
    "no bias": (lambda f: edit_tensors(f, without("relative_attention_bias")), "lacks the tensor"),
    "bias in every layer": (lambda f: edit_tensors(f, bias_in_every_layer), FIT),
    "no last norm": (lambda f: edit_tensors(f, without("encoder.final_layer_norm")), "lacks the tensor encoder.final"),
    "more layers than weights": (lambda f: edit_config(f, num_layers=3), "lacks the tensor encoder.block.2"),
    "fewer layers than weights": (lambda f: edit_config(f, num_layers=1), f"{FIT}, encoder.block.1"),
    "other buckets": (lambda f: edit_config(f, relative_attention_num_buckets=32), FIT),
    "other heads": (lambda f: edit_config(f, d_kv=18, num_heads=2), FIT),
    "other width": (lambda f: edit_config(f, d_model=30), FIT),
    "not gated": (lambda f: edit_config(f, feed_forward_proj="relu", dense_act_fn="relu"), "lacks the tensor"),
    "other tokens": (lambda f: edit_config(f, vocab_size=128), FIT),
    "T5 of text": (lambda f: edit_config(f, vocab_size=32_128), "reads text and no proteins"),
    "gated ReLU": (
        lambda f: edit_config(f, feed_forward_proj="gated-relu", dense_act_fn="relu"),
        "('gated-relu, relu') that seqmill does not compute",
    ),
    "another GELU": (lambda f: edit_config(f, dense_act_fn="gelu"), "('gated-gelu, gelu') that"),
    "list for another": (lambda f: edit_config(f, dense_act_fn=["x" * 10**5]), "that seqmill does not compute"),
    "no known activation": (lambda f: edit_config(f, feed_forward_proj="selu", dense_act_fn=None), "('selu') that"),
    "list for an activation": (lambda f: edit_config(f, feed_forward_proj=["relu"]), SIZES),
    "no width": (lambda f: drop_from_config(f, "d_model"), SIZES),
    "no heads": (lambda f: edit_config(f, num_heads=0), SIZES),
    "text for a size": (lambda f: edit_config(f, d_ff="large"), SIZES),
    "true for a size": (lambda f: edit_config(f, d_ff=True), SIZES),
    "10^12 layers": (lambda f: edit_config(f, num_layers=10**12), SIZES),
    "epsilon of NaN": (lambda f: edit_config(f, layer_norm_epsilon=float("nan")), SIZES),
    "two buckets": (lambda f: edit_config(f, relative_attention_num_buckets=2), SIZES),
    "distances within the buckets": (lambda f: edit_config(f, relative_attention_max_distance=16), SIZES),
    "another T5": (lambda f: edit_config(f, model_type="umt5"), "is of type umt5"),
}


@pytest.mark.parametrize(("damage", "says"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_a_bad_t5_is_refused(tmp_path, damage, says):
    folder = t5_models.write(tmp_path / "model", **t5_models.ANKH)
    damage(folder)
    sentence = refusal(load_model, folder)
    assert sentence.startswith(f"model {folder}: ")
    assert says in sentence


def test_a_decoder_alone_is_refused_where_a_whole_model_is_not(tmp_path):
    folder = t5_models.write(tmp_path / "model", whole=True, **t5_models.ANKH)
    load_model(folder)
    edit_tensors(folder, without("encoder.block"))
    assert "holds no encoder of a T5" in refusal(load_model, folder)


# What is known of a model before it is loaded


@pytest.mark.parametrize(
    ("vocab_size", "licence"), [(128, "AFL-3.0"), (150, "MIT"), (144, "CC BY-NC-SA 4.0"), (256, "see the model card")]
)
def test_licences(vocab_size, licence):
    assert family.licence(Config.read(t5_models.PROTT5 | {"vocab_size": vocab_size}, "x"), "x") == licence


def test_the_half_precision_that_loses_less():
    assert Config.read(t5_models.PROTT5, "x").half == "float16"
    assert Config.read(t5_models.ANKH, "x").half == "bfloat16"


def test_cost_grows_with_operations():
    """Linear for short sequences; at 2,000 tokens attention costs as much as the rest."""
    one, ten, two_thousand, four_thousand = family.FAMILY.cost(np.array([0, 9, 1_999, 3_999]))
    assert ten / one == pytest.approx(10, rel=0.01)
    assert four_thousand / two_thousand == pytest.approx(3)
