"""Write a checkpoint of a real size with random weights: for speed, memory and numerics where no hub is near.

The weights are drawn as at the start of training (standard deviation 0.02, in T5 by its own rule), so activations are
smaller than those of the trained model; time and memory are the same. Names, shapes and dtypes of the tensors are those
of the published checkpoints.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

# Layers, hidden size, heads of facebook/esm2_*: the feed-forward is four times as wide.
SIZES = {
    "8M": (6, 320, 20),
    "35M": (12, 480, 20),
    "150M": (30, 640, 20),
    "650M": (33, 1280, 20),
    "3B": (36, 2560, 40),
    "15B": (48, 5120, 40),
}
# ESM-1b has ESM-2's layers under positions that are learned, 1,024 of them.
ESM1 = {"esm1b": (33, 1280, 20)}
# Layers, hidden size, heads, feed-forward of biohub/ESMC-*.
ESMC = {"esmc-300M": (30, 960, 15, 2560), "esmc-600M": (36, 1152, 18, 3072)}
# What distinguishes Rostlab/prot_t5_xl_half_uniref50-enc and ElnaggarLab/ankh-base from T5's defaults.
T5 = {
    "prott5-xl": {
        **{"vocab_size": 128, "num_layers": 24, "d_model": 1024, "d_kv": 128, "num_heads": 32, "d_ff": 16_384},
        **{"feed_forward_proj": "relu", "relative_attention_num_buckets": 32},
    },
    "ankh-base": {
        **{"vocab_size": 144, "num_layers": 48, "d_model": 768, "d_kv": 64, "num_heads": 12, "d_ff": 3072},
        **{"feed_forward_proj": "gated-gelu", "relative_attention_num_buckets": 64},
    },
}
DNABERT = "dnabert-s"
FAMILIES = (*ESM1, *ESMC, *T5, DNABERT)
NAMES = (*SIZES, *FAMILIES)
# The dtype that a checkpoint is published in, where that is not float32.
PUBLISHED = {"prott5-xl": torch.float16}


def config(size: str, layers: int | None = None) -> "transformers.EsmConfig":
    """The configuration of an ESM-2 or ESM-1b, as in its checkpoint on the hub; `layers` instead of its own number."""
    depth, width, heads = (SIZES | ESM1)[size]
    return transformers.EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=width,
        num_hidden_layers=layers or depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=1026,
        position_embedding_type="absolute" if size in ESM1 else "rotary",
        emb_layer_norm_before=size in ESM1,
        token_dropout=True,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def esmc_config(size: str, layers: int | None = None):
    """The configuration of an ESM-C (`transformers.EsmcConfig`); ImportError where transformers is older than that."""
    from transformers import EsmcConfig

    depth, width, heads, inner = ESMC[size]
    return EsmcConfig(
        hidden_size=width, num_attention_heads=heads, num_hidden_layers=layers or depth, intermediate_size=inner
    )


def t5_config(name: str, layers: int | None = None) -> "transformers.T5Config":
    """The configuration of a T5 encoder."""
    fields = T5[name] | ({"num_layers": layers} if layers else {})
    return transformers.T5Config(**fields, is_encoder_decoder=True, layer_norm_epsilon=1e-6)


def _drawn(name: str, dtype: torch.dtype, layers: int | None) -> "transformers.PreTrainedModel":
    """A model of transformers on PyTorch's default device, with the heads that its checkpoint has."""
    if name in ESMC:
        from transformers import EsmcForMaskedLM

        return EsmcForMaskedLM._from_config(esmc_config(name, layers), dtype=dtype)
    if name not in T5:
        return transformers.EsmForMaskedLM._from_config(config(name, layers), dtype=dtype)
    model = transformers.T5EncoderModel._from_config(t5_config(name, layers), dtype=dtype)
    # T5 begins with hardly any bias of attention, which would hide how exactly it is computed.
    model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.data.normal_()
    return model


def dnabert_shapes(fields: dict) -> dict[str, tuple[int, ...]]:
    """Tensor name to shape of DNABERT-S's checkpoint, for its config.json."""
    width, inner = fields["hidden_size"], fields["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (fields["vocab_size"], width),
        "embeddings.token_type_embeddings.weight": (fields["type_vocab_size"], width),
        **_norm("embeddings.LayerNorm", width),
    }
    for number in range(fields["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        shapes |= _linear(f"{layer}.attention.self.Wqkv", 3 * width, width)
        shapes |= _linear(f"{layer}.attention.output.dense", width, width)
        shapes |= _norm(f"{layer}.attention.output.LayerNorm", width)
        shapes[f"{layer}.mlp.gated_layers.weight"] = (2 * inner, width)
        shapes |= _linear(f"{layer}.mlp.wo", width, inner)
        shapes |= _norm(f"{layer}.mlp.layernorm", width)
    return shapes | _linear("pooler.dense", width, width)


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _write_dnabert(folder: Path, files: Path, dtype: torch.dtype, device: str, layers: int | None) -> None:
    """Draw DNABERT-S; its config.json and tokenizer are copied, for no library can make them up."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(files / name, folder / name)
    fields = json.loads((folder / "config.json").read_text())
    fields["num_hidden_layers"] = layers or fields["num_hidden_layers"]
    (folder / "config.json").write_text(json.dumps(fields, indent=1))
    tensors = {}
    for name, shape in dnabert_shapes(fields).items():
        is_gain = name.lower().endswith("norm.weight")
        drawn = torch.ones(shape) if is_gain else torch.randn(shape, device=device).cpu() * 0.02
        tensors[name] = drawn.to(dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def write(
    name: str,
    folder: Path,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    layers: int | None = None,
    files: Path | None = None,
) -> None:
    """Draw the weights on a device and save them as a checkpoint as users have it.

    Args:
        name: one of NAMES.
        dtype: of the file, instead of the published one.
        layers: instead of the model's own number, for trials.
        files: folder with DNABERT-S's config.json and tokenizer.json.

    Raises:
        ValueError: DNABERT-S without `files`.
    """
    torch.manual_seed(seed)
    dtype = dtype or PUBLISHED.get(name, torch.float32)
    if name == DNABERT:
        if files is None:
            raise ValueError(f"{name}: needs a folder with its config.json and tokenizer.json; give --dnabert-files")
        _write_dnabert(folder, files, dtype, device, layers)
        return
    with torch.device(device):
        model = _drawn(name, dtype, layers)
    model.save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", choices=NAMES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    dtypes = ["float32", "bfloat16", "float16"]
    parser.add_argument("--dtype", choices=dtypes, help="of the file [as published]")
    parser.add_argument("--device", default="cpu", help="where to draw them; a GPU is faster")
    parser.add_argument("--layers", type=int, help="instead of its own number, for trials")
    parser.add_argument("--dnabert-files", type=Path, help="folder with DNABERT-S's config.json and tokenizer.json")
    args = parser.parse_args()
    if args.size == DNABERT and args.dnabert_files is None:
        parser.error(f"{DNABERT} needs --dnabert-files")
    dtype = getattr(torch, args.dtype) if args.dtype else None
    write(args.size, args.folder, args.seed, dtype, args.device, args.layers, args.dnabert_files)
