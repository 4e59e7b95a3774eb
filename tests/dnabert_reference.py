"""DNABERT written down once more, as plainly as its paper has it: one sequence at a time, with every bias spelled out.

The original does not run with today's transformers. `tests/models/test_dnabert.py` holds this, too, to what it gave.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from paths import FAMILIES
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

TINY = FAMILIES / "dnabert-s-tiny"


def write(folder: Path, width: int = 24, layers: int = 2, heads: int = 3, expanded: int = 40) -> Path:
    """A checkpoint with random weights, gains not one, biases not zero, and the released tokenizer."""
    folder.mkdir(parents=True)
    fields = json.loads((TINY / "config.json").read_text())
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    (folder / "config.json").write_text(json.dumps(fields | sizes | {"intermediate_size": expanded}))
    write_tokenizer(folder / "tokenizer.json")
    shapes = {
        "embeddings.word_embeddings.weight": (4096, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        "pooler.dense.weight": (width, width),
    }
    norms = ["embeddings.LayerNorm"]
    for n in range(layers):
        layer = f"encoder.layer.{n}"
        shapes |= {
            f"{layer}.attention.self.Wqkv.weight": (3 * width, width),
            f"{layer}.attention.self.Wqkv.bias": (3 * width,),
            f"{layer}.attention.output.dense.weight": (width, width),
            f"{layer}.attention.output.dense.bias": (width,),
            f"{layer}.mlp.gated_layers.weight": (2 * expanded, width),
            f"{layer}.mlp.wo.weight": (width, expanded),
            f"{layer}.mlp.wo.bias": (width,),
        }
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.mlp.layernorm"]
    shapes |= {f"{norm}.{kind}": (width,) for norm in norms for kind in ("weight", "bias")}
    random = torch.Generator().manual_seed(0)
    # Products of such weights keep the size of what they take, whatever the width.
    tensors = {name: torch.randn(shape, generator=random) * width**-0.5 for name, shape in shapes.items()}
    tensors |= {f"{norm}.weight": 1 + tensors[f"{norm}.weight"] for norm in norms}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_tokenizer(path: Path) -> None:
    """A tokenizer of the same kind as the released one, with all that makes it hard to use: byte pairs of DNA, trained on
    some viruses, with stored truncation and padding.
    """
    library = Tokenizer(models.BPE(unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=list("ACGT"), limit_alphabet=4, show_progress=False
    )
    lines = (FAMILIES / "nucleotides.fasta").read_text().splitlines()
    library.train_from_iterator((line for line in lines if set(line) <= set("ACGT")), trainer)
    library.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    library.enable_truncation(2000)
    library.enable_padding(pad_id=3, pad_token="[PAD]", length=2000)
    library.save(str(path))


def reference(folder: Path) -> Callable[[bytes, int], torch.Tensor]:
    """Takes a sequence (or its tokens) and a layer, gives the states of all its tokens, (T, D) float32."""
    fields = json.loads((folder / "config.json").read_text())
    safe = folder / "model.safetensors"
    weights = load_file(safe) if safe.exists() else torch.load(folder / "pytorch_model.bin", weights_only=True)
    library = tokenizer(folder)
    heads, eps = fields["num_attention_heads"], fields["layer_norm_eps"]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + eps).sqrt()
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def product(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def attend(qkv: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(0, 1) for part in qkv.chunk(3, dim=-1))
        places = torch.arange(len(qkv))
        distances = (places - places[:, None]).abs()
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5 - slopes(heads)[:, None, None] * distances
        return (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)

    @torch.inference_mode()
    def states(sequence: bytes, layer: int, ids: list[int] | None = None) -> torch.Tensor:
        ids = library.encode(sequence.decode()).ids if ids is None else ids
        words, types = weights["embeddings.word_embeddings.weight"], weights["embeddings.token_type_embeddings.weight"]
        x = norm(words[ids] + types[0], "embeddings.LayerNorm")
        for name in (f"encoder.layer.{n}" for n in range(layer)):
            attended = attend(product(x, f"{name}.attention.self.Wqkv"))
            x = norm(x + product(attended, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
            gate, value = product(x, f"{name}.mlp.gated_layers").chunk(2, dim=-1)
            x = norm(x + product(F.gelu(gate) * value, f"{name}.mlp.wo"), f"{name}.mlp.layernorm")
        return x

    return states


def tokenizer(folder: Path) -> Tokenizer | None:
    """A folder's tokenizer, whose padding and truncation are off; None where it has none."""
    if not (folder / "tokenizer.json").exists():
        return None
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.no_truncation()
    library.no_padding()
    return library


def slopes(heads: int) -> torch.Tensor:
    """Of ALiBi: a geometric series for a power of two, then every second one of the series for twice as many."""
    power = 2 ** torch.tensor(heads).log2().floor()
    first = 2 ** (-8 * torch.arange(1, power + 1) / power)
    others = 2 ** (-4 * torch.arange(1, 2 * (heads - power), 2) / power)
    return torch.cat((first, others))
