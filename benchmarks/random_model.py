"""Write an ESM-2 checkpoint of a real size with random weights: for speed, memory and numerics where no hub is near.

The weights are drawn as at the start of training (standard deviation 0.02), so activations are smaller than those of
the trained model; time and memory are the same.
"""

import argparse
from pathlib import Path

import torch
from transformers import EsmConfig, EsmForMaskedLM

# layers, hidden size, heads of facebook/esm2_*: the feed-forward is four times as wide.
SIZES = {
    "8M": (6, 320, 20),
    "35M": (12, 480, 20),
    "150M": (30, 640, 20),
    "650M": (33, 1280, 20),
    "3B": (36, 2560, 40),
    "15B": (48, 5120, 40),
}


def config(size: str) -> EsmConfig:
    """The configuration of an ESM-2 size, as in its checkpoint on the hub."""
    layers, width, heads = SIZES[size]
    return EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=1026,
        position_embedding_type="rotary",
        emb_layer_norm_before=False,
        token_dropout=True,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def write(size: str, folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
    """Draw the weights on a device and save them as a checkpoint of transformers."""
    torch.manual_seed(seed)
    with torch.device(device):
        model = EsmForMaskedLM._from_config(config(size), dtype=dtype)
    model.save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the file")
    parser.add_argument("--device", default="cpu", help="where to draw them; a GPU is faster")
    args = parser.parse_args()
    write(args.size, args.folder, args.seed, getattr(torch, args.dtype), args.device)
