"""Other ways to get embeddings of the families beyond ESM-2, as their documentation has them used, on the same sequences.

Each function builds its model with random weights of the real size, and returns residues or bases, and tokens, per
second of the forward, pooling and the copy to the host, as those in `peers` do for ESM-2.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import peers
import torch
from common import by_length, total
from padded_dnabert import LAYERS, PaddedDNABERT
from peer_batches import DEVICE, T5_LETTERS, Padded, Rate, bpe_tokens, padded_batches, rate
from random_model import ESM1, ESMC, T5, esmc_config, t5_config
from transformers import T5EncoderModel

from seqmill.inputs.fasta import Record

if TYPE_CHECKING:
    from transformers import EsmcModel

# DNABERT-S's tokenizer pads with this.
BPE_PADDING = 3


@dataclass(frozen=True)
class Given:
    """What a peer is run on.

    Attributes:
        model: one of `random_model.FAMILIES`.
        files: folder with DNABERT-S's tokenizer.json.
        layers: instead of the model's own, for trials.
    """

    model: str
    records: list[Record]
    files: Path | None = None
    layers: int | None = None


def esmc_encoder(given: Given, attention: str) -> "EsmcModel":
    """transformers' EsmcModel in bfloat16."""
    # Only here: older versions have none, and all other peers run without it.
    from transformers import EsmcModel

    torch.manual_seed(0)
    config = esmc_config(given.model, given.layers)
    with DEVICE:
        return EsmcModel._from_config(config, attn_implementation=attention, dtype=torch.bfloat16).eval()


def esmc_sorted(given: Given) -> Rate:
    """Longest first, up to 32,768 tokens a batch, with SDPA."""
    return peers.padded(esmc_encoder(given, "sdpa"), by_length(given.records), peers.TOKENS)


def esmc_packed(given: Given) -> Rate:
    """Packed batches of 32,768 tokens, with flash-attn."""
    return peers.packed(esmc_encoder(given, "flash_attention_2"), given.records)


def esmc_esme(given: Given) -> Rate:
    """esm-efficient's ESM-C."""
    import esme

    torch.manual_seed(0)
    layers, width, heads, _ = ESMC[given.model]
    model = esme.ESMC(given.layers or layers, width, heads, dtype=torch.bfloat16).to(DEVICE).eval()
    return peers.esme_packed(model, given.records)


def esm1_sorted(given: Given) -> Rate:
    """transformers' EsmModel in bfloat16; longest first, up to 32,768 tokens a batch, with SDPA."""
    return peers.transformers_sorted(given.model, given.records, given.layers)


def _t5_sorted(given: Given, dtype: torch.dtype) -> Rate:
    """transformers' T5EncoderModel with SDPA; longest first, up to 16,384 tokens a batch.

    Half of what the others have: its bias is a mask of (heads, longest, longest) for every sequence.
    """
    torch.manual_seed(0)
    config, proteins = t5_config(given.model, given.layers), given.records
    with DEVICE:
        model = T5EncoderModel._from_config(config, attn_implementation="sdpa", dtype=dtype).eval()

    def embed(batch: list[Record]) -> torch.Tensor:
        inputs = Padded.of([T5_LETTERS(protein.sequence) for protein in batch], T5_LETTERS.padding).to(DEVICE)
        return inputs.mean(model(inputs.ids, attention_mask=inputs.mask).last_hidden_state, 0, 1)

    batches = padded_batches(by_length(proteins), peers.TOKENS // 2, None)
    return rate(embed, batches, total(proteins), T5_LETTERS.count(proteins))


def t5_float16(given: Given) -> Rate:
    """As ProtT5's authors run it, `model.half()`."""
    return _t5_sorted(given, torch.float16)


def t5_bfloat16(given: Given) -> Rate:
    """In bfloat16, which cannot overflow."""
    return _t5_sorted(given, torch.bfloat16)


def virnucpro_batches(records: list[Record], bases: int = 2_048) -> list[list[Record]]:
    """In the order of the file, up to its default of 2,048 bases a batch, whatever they are padded to."""
    batches: list[list[Record]] = [[]]
    for record in records:
        if batches[-1] and total([*batches[-1], record]) > bases:
            batches.append([])
        batches[-1].append(record)
    return batches


def _dnabert(given: Given, batches: list[list[np.ndarray]], autocast: bool) -> Rate:
    """The padded model on batches of tokens, which are made beforehand.

    Args:
        autocast: float32 weights, cast once to bfloat16 for the products; else bfloat16 weights.
    """
    padded = [Padded.of(batch, BPE_PADDING) for batch in batches]

    def embed(batch: Padded) -> torch.Tensor:
        batch = batch.to(DEVICE)
        # Its mean counts the special tokens, too.
        return batch.mean(model(batch.ids, batch.mask), 0, 0)

    # Autocast keeps what it cast of ordinary tensors only, not of those that are made in inference mode.
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(DEVICE.type, torch.bfloat16, enabled=autocast):
        torch.manual_seed(0)
        with DEVICE:
            model = PaddedDNABERT(given.layers or LAYERS).eval().to(torch.float32 if autocast else torch.bfloat16)
        tokens = sum(len(row) for batch in batches for row in batch)
        return rate(embed, padded, total(given.records), tokens)


def virnucpro(given: Given) -> Rate:
    """VirNucPro's loop: the order of the file, 2,048 bases a batch, float32 weights under bfloat16 autocast."""
    batches = [bpe_tokens(batch, given.files / "tokenizer.json") for batch in virnucpro_batches(given.records)]
    return _dnabert(given, batches, autocast=True)


def virnucpro_sorted(given: Given) -> Rate:
    """The best that the same model can do: bfloat16 weights, longest first, up to 32,768 tokens a batch."""
    tokens = sorted(bpe_tokens(given.records, given.files / "tokenizer.json"), key=len, reverse=True)
    return _dnabert(given, padded_batches(tokens, peers.TOKENS, None, len), autocast=False)


_ESMC = {
    "transformers, sorted and padded, SDPA": esmc_sorted,
    "transformers, packed, flash-attn": esmc_packed,
    "ESME (esm-efficient), packed, flash-attn": esmc_esme,
}
_T5 = {
    "transformers, sorted and padded, SDPA, float16": t5_float16,
    "transformers, sorted and padded, SDPA, bfloat16": t5_bfloat16,
}
_DNABERT = {
    "VirNucPro's padded batches of 2,048 bases, SDPA": virnucpro,
    "the same model, sorted, 32,768 tokens, SDPA": virnucpro_sorted,
}
_ESM1 = {"transformers, sorted and padded, SDPA": esm1_sorted}
PEERS = {
    **dict.fromkeys(ESM1, _ESM1),
    **dict.fromkeys(ESMC, _ESMC),
    **dict.fromkeys(T5, _T5),
    "dnabert-s": _DNABERT,
}


@torch.inference_mode()
def measure(what: str, given: Given) -> Rate:
    """The speed of one of PEERS[given.model]."""
    found = PEERS[given.model][what](given)
    torch.cuda.empty_cache()
    return found
