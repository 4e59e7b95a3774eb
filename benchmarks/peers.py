"""Other ways to get ESM-2 and ESM-1b embeddings, as their documentation has them used, timed on the same sequences.

Each function builds its model with random weights of a size, embeds (mean over residues), and returns residues and
tokens per second of the forward, pooling and the copy to the host; reading FASTA and writing files are left out but for
esm-extract, whose way it is to save a file per protein. None of the packages but transformers is needed by seqmill.
"""

import tempfile
from pathlib import Path

import torch
from common import by_length, total
from peer_batches import DEVICE, ESM_LETTERS, Packed, Padded, Rate, packed_batches, padded_batches, rate
from random_model import SIZES, config
from transformers import EsmModel, PreTrainedModel

from seqmill.inputs.fasta import Record

TOKENS = 32_768


def encoder(size: str, attention: str, layers: int | None = None) -> EsmModel:
    """transformers' model in bfloat16 on the GPU; `layers` instead of its own, for trials."""
    torch.manual_seed(0)
    options = {"attn_implementation": attention, "dtype": torch.bfloat16, "add_pooling_layer": False}
    with DEVICE:
        return EsmModel._from_config(config(size, layers), **options).eval()


def padded(model: PreTrainedModel, proteins: list[Record], tokens: int | None, count: int | None = None) -> Rate:
    """A model of ESM's vocabulary on padded batches."""

    def embed(batch: list[Record]) -> torch.Tensor:
        inputs = Padded.of([ESM_LETTERS(protein.sequence) for protein in batch], ESM_LETTERS.padding).to(DEVICE)
        return inputs.mean(model(inputs.ids, attention_mask=inputs.mask).last_hidden_state, 1, 1)

    return rate(embed, padded_batches(proteins, tokens, count), total(proteins), ESM_LETTERS.count(proteins))


def packed(model: PreTrainedModel, proteins: list[Record]) -> Rate:
    """A model of ESM's vocabulary with flash-attn on packed batches."""

    def embed(batch: Packed) -> torch.Tensor:
        batch = batch.to(DEVICE)
        bounds = {"cu_seq_lens_q": batch.cu_seqlens, "cu_seq_lens_k": batch.cu_seqlens}
        longest = {"max_length_q": batch.longest, "max_length_k": batch.longest}
        ids, positions = batch.ids[None], batch.positions[None]
        hidden = model(ids, position_ids=positions, attention_mask=None, **bounds, **longest).last_hidden_state
        return batch.mean(hidden[0], 1, 1)

    batches = list(packed_batches(proteins, ESM_LETTERS, TOKENS))
    return rate(embed, batches, total(proteins), ESM_LETTERS.count(proteins))


def transformers_naive(size: str, proteins: list[Record]) -> Rate:
    """Eight proteins a batch, in the order of the file."""
    return padded(encoder(size, "sdpa"), proteins, None, 8)


def transformers_sorted(size: str, proteins: list[Record], layers: int | None = None) -> Rate:
    """Longest first, up to 32,768 tokens a batch, with SDPA."""
    return padded(encoder(size, "sdpa", layers), by_length(proteins), TOKENS)


def transformers_packed(size: str, proteins: list[Record]) -> Rate:
    """Packed batches of 32,768 tokens, with flash-attn."""
    return packed(encoder(size, "flash_attention_2"), proteins)


def esme_packed(model: torch.nn.Module, proteins: list[Record]) -> Rate:
    """A model of esm-efficient: packed, bfloat16, flash-attn, its own 50,000 tokens a batch."""

    def embed(batch: Packed) -> torch.Tensor:
        batch = batch.to(DEVICE)
        hidden = model.forward_representation(batch.ids, pad_args=(batch.cu_seqlens, batch.longest))
        return batch.mean(hidden, 1, 1)

    batches = list(packed_batches(proteins, ESM_LETTERS, 50_000))
    return rate(embed, batches, total(proteins), ESM_LETTERS.count(proteins))


def esme(size: str, proteins: list[Record]) -> Rate:
    """esm-efficient's ESM-2."""
    import esme

    torch.manual_seed(0)
    return esme_packed(esme.ESM2(*SIZES[size], dtype=torch.bfloat16).to(DEVICE).eval(), proteins)


def esm_extract(size: str, proteins: list[Record]) -> Rate:
    """The loop of fair-esm's scripts/extract.py with its defaults: float32, 4,096 tokens, a file per protein."""
    import esm

    torch.manual_seed(0)
    layers, width, heads = SIZES[size]
    with DEVICE:
        model = esm.ESM2(layers, width, heads, alphabet="ESM-1b").eval()
    dataset = esm.FastaBatchedDataset([p.id for p in proteins], [p.sequence.decode() for p in proteins])
    batches = dataset.get_batch_indices(4096, extra_toks_per_seq=1)
    loader = torch.utils.data.DataLoader(
        dataset, collate_fn=model.alphabet.get_batch_converter(1022), batch_sampler=batches
    )
    with tempfile.TemporaryDirectory() as folder:

        def embed(batch) -> None:
            labels, letters, tokens = batch
            out = model(tokens.to(device=DEVICE, non_blocking=True), repr_layers=[layers], return_contacts=False)
            hidden = out["representations"][layers].to(device="cpu")
            for number, label in enumerate(labels):
                mean = hidden[number, 1 : min(1022, len(letters[number])) + 1].mean(0).clone()
                torch.save({"label": label, "mean_representations": {layers: mean}}, Path(folder) / f"{label}.pt")

        residues = sum(min(len(p.sequence), 1022) for p in proteins)
        return rate(embed, list(loader), residues, residues + 2 * len(proteins))


# What runs, and every how many-th protein it gets: the slow ones would take minutes for all.
PEERS = {
    "esm-extract (fair-esm), float32": (esm_extract, 16),
    "transformers, batches of 8 in FASTA order, SDPA": (transformers_naive, 4),
    "transformers, sorted and padded, SDPA": (transformers_sorted, 1),
    "transformers, packed, flash-attn": (transformers_packed, 1),
    "ESME (esm-efficient), packed, flash-attn": (esme, 1),
}


@torch.inference_mode()
def measure(name: str, size: str, proteins: list[Record]) -> Rate:
    """The speed of one of PEERS."""
    run, every = PEERS[name]
    found = run(size, (by_length(proteins) if every > 1 and run is not transformers_naive else proteins)[::every])
    torch.cuda.empty_cache()
    return found
