"""Small and large T5 checkpoints with random weights, and what transformers computes with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqmill.inputs.alphabet import PROTEIN
from seqmill.inputs.fasta import Record

# Letters that tell tokens, embeddings and layers apart; U, Z, O and B are X.
LETTERS = "ALGVSREDTIPKFQNYMHWCX"
IDS = {letter: 3 + n for n, letter in enumerate(LETTERS)} | dict.fromkeys("UZOB", 3 + LETTERS.index("X"))
END = 1

# ProtT5's and Ankh's kinds of config.json, in a few numbers.
# Smaller heads would not do: of 10 numbers, PyTorch's attention on the CPU rounds by how many sequences it computes at once.
PROTT5 = {"vocab_size": 128, "d_model": 24, "d_kv": 12, "num_heads": 3, "d_ff": 40, "num_layers": 2}
ANKH = PROTT5 | {"vocab_size": 144, "feed_forward_proj": "gated-gelu", "relative_attention_num_buckets": 64}


def proteins(lengths: list[int], seed: int = 0) -> list[Record]:
    """Random sequences with every letter of the alphabet."""
    letters, random = np.frombuffer(PROTEIN.letters, dtype=np.uint8), np.random.default_rng(seed)
    return [Record(str(n), random.choice(letters, length).tobytes(), None, 0) for n, length in enumerate(lengths)]


def write(folder: Path, whole: bool = False, **config: Any) -> Path:
    """A checkpoint as transformers saves it.

    Gains are not one and attention biases not small, so that a forgotten one shows.

    Args:
        whole: with a decoder.
        config: of config.json.
    """
    from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration

    torch.manual_seed(0)
    model = (T5ForConditionalGeneration if whole else T5EncoderModel)(T5Config(**config))
    for name, parameter in model.named_parameters():
        if "layer_norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        elif "relative_attention_bias" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    return folder


def reference(folder: Path, before: tuple[int, ...] = ()) -> Callable[[bytes, int], torch.Tensor]:
    """transformers' states (T, width) of a sequence by itself, special tokens included, by layer.

    Args:
        before: ids of the tokens before each sequence.
    """
    from transformers import T5EncoderModel

    model = T5EncoderModel.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def states(sequence: bytes, layer: int = -1) -> torch.Tensor:
        ids = torch.tensor([[*before, *(IDS[letter] for letter in sequence.decode()), END]])
        return model(ids, output_hidden_states=True).hidden_states[layer][0]

    return states
