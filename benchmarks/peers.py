"""Other ways to get ESM-2 embeddings, as their documentation has them used, timed on the same sequences.

Each function builds its model with random weights of a size, embeds (mean over residues), and returns residues per
second of the forward, pooling and the copy to the host; reading FASTA and writing files are left out but for
esm-extract, whose way it is to save a file per protein. None of the packages but transformers is needed by seqmill.
"""

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from common import by_length, total
from random_model import SIZES, config
from transformers import EsmModel

from seqmill.engine.batching import PackedBatches
from seqmill.inputs.fasta import Record
from seqmill.inputs.sequences import Sequences
from seqmill.kernels.operators import EAGER
from seqmill.models.esm2.config import tokenizer

GPU = torch.device("cuda")
TOKENIZER = tokenizer()


def rate(embed: Callable, batches: list, residues: int) -> float:
    """Residues per second over all batches, after three of them as a warm-up."""
    for batch in batches[:3]:
        embed(batch)
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for batch in batches:
        embed(batch)
    torch.cuda.synchronize()
    return residues / (time.perf_counter() - begun)


def encoder(size: str, attention: str) -> EsmModel:
    """transformers' model in bfloat16 on the GPU."""
    torch.manual_seed(0)
    options = {"attn_implementation": attention, "dtype": torch.bfloat16, "add_pooling_layer": False}
    with GPU:
        return EsmModel._from_config(config(size), **options).eval()


def padded_batches(proteins: Iterable[Record], tokens: int | None, count: int | None) -> list[list[Record]]:
    """Batches in the order given: at most `count` proteins, or as many as padded hold `tokens`."""
    batches, batch, longest = [], [], 0
    for protein in proteins:
        length = max(longest, len(protein.sequence) + 2)
        full = len(batch) == count if count else length * (len(batch) + 1) > tokens
        if batch and full:
            batches.append(batch)
            batch, length = [], len(protein.sequence) + 2
        batch.append(protein)
        longest = length
    return [*batches, batch]


def transformers_padded(size: str, proteins: list[Record], tokens: int | None, count: int | None = None) -> float:
    """EsmModel in bfloat16 with SDPA on padded batches."""
    model = encoder(size, "sdpa")

    def embed(batch: list[Record]) -> torch.Tensor:
        ids = torch.full((len(batch), max(len(p.sequence) for p in batch) + 2), TOKENIZER.padding)
        for row, protein in zip(ids, batch, strict=True):
            letters = np.frombuffer(protein.sequence, np.uint8)
            row[0], row[len(letters) + 1] = TOKENIZER.before[0], TOKENIZER.after[0]
            row[1 : len(letters) + 1] = torch.from_numpy(TOKENIZER.table[letters]).long()
        ids = ids.to(GPU)
        hidden = model(ids, attention_mask=(ids != TOKENIZER.padding).long()).last_hidden_state
        keep = ((ids != TOKENIZER.padding) & (ids != TOKENIZER.before[0]) & (ids != TOKENIZER.after[0])).unsqueeze(-1)
        return ((hidden.float() * keep).sum(1) / keep.sum(1)).cpu()

    return rate(embed, padded_batches(proteins, tokens, count), total(proteins))


def transformers_naive(size: str, proteins: list[Record]) -> float:
    """Eight proteins a batch, in the order of the file."""
    return transformers_padded(size, proteins, None, 8)


def transformers_sorted(size: str, proteins: list[Record]) -> float:
    """Longest first, up to 32,768 tokens a batch."""
    return transformers_padded(size, by_length(proteins), 32_768)


def packed(proteins: list[Record], tokens: int) -> PackedBatches:
    """seqmill's batches, for tools that take packed ones."""
    sequences = Sequences(proteins)
    return PackedBatches(sequences, TOKENIZER.tokens(sequences), TOKENIZER, tokens, fill=False)


def transformers_packed(size: str, proteins: list[Record]) -> float:
    """EsmModel in bfloat16 with flash-attn on packed batches of 32,768 tokens."""
    model = encoder(size, "flash_attention_2")
    batches = packed(proteins, 32_768)

    def embed(batch) -> torch.Tensor:
        batch = batch.to(GPU)
        bounds = {"cu_seq_lens_q": batch.cu_seqlens, "cu_seq_lens_k": batch.cu_seqlens}
        longest = {"max_length_q": batch.longest, "max_length_k": batch.longest}
        ids, positions = batch.token_ids.long()[None], batch.positions().long()[None]
        hidden = model(ids, position_ids=positions, attention_mask=None, **bounds, **longest).last_hidden_state
        return EAGER.mean(hidden[0], batch.cu_seqlens, 1, 1).cpu()

    return rate(embed, list(batches), int(batches.sequences.offsets[-1]))


def esme(size: str, proteins: list[Record]) -> float:
    """esm-efficient: packed, bfloat16, flash-attn, its own 50,000 tokens a batch."""
    import esme

    torch.manual_seed(0)
    layers, width, heads = SIZES[size]
    model = esme.ESM2(layers, width, heads, dtype=torch.bfloat16).to(GPU).eval()
    batches = packed(proteins, 50_000)

    def embed(batch) -> torch.Tensor:
        batch = batch.to(GPU)
        hidden = model.forward_representation(batch.token_ids.long(), pad_args=(batch.cu_seqlens, batch.longest))
        return EAGER.mean(hidden, batch.cu_seqlens, 1, 1).cpu()

    return rate(embed, list(batches), int(batches.sequences.offsets[-1]))


def esm_extract(size: str, proteins: list[Record]) -> float:
    """The loop of fair-esm's scripts/extract.py with its defaults: float32, 4,096 tokens, a file per protein."""
    import esm

    torch.manual_seed(0)
    layers, width, heads = SIZES[size]
    with GPU:
        model = esm.ESM2(layers, width, heads, alphabet="ESM-1b").eval()
    dataset = esm.FastaBatchedDataset([p.id for p in proteins], [p.sequence.decode() for p in proteins])
    batches = dataset.get_batch_indices(4096, extra_toks_per_seq=1)
    loader = torch.utils.data.DataLoader(
        dataset, collate_fn=model.alphabet.get_batch_converter(1022), batch_sampler=batches
    )
    with tempfile.TemporaryDirectory() as folder:

        def embed(batch) -> None:
            labels, letters, tokens = batch
            out = model(tokens.to(device="cuda", non_blocking=True), repr_layers=[layers], return_contacts=False)
            hidden = out["representations"][layers].to(device="cpu")
            for number, label in enumerate(labels):
                mean = hidden[number, 1 : min(1022, len(letters[number])) + 1].mean(0).clone()
                torch.save({"label": label, "mean_representations": {layers: mean}}, Path(folder) / f"{label}.pt")

        return rate(embed, list(loader), sum(min(len(p.sequence), 1022) for p in proteins))


# What runs, and every how many-th protein it gets: the slow ones would take minutes for all.
PEERS = {
    "esm-extract (fair-esm), float32": (esm_extract, 16),
    "transformers, batches of 8 in FASTA order, SDPA": (transformers_naive, 4),
    "transformers, sorted and padded, SDPA": (transformers_sorted, 1),
    "transformers, packed, flash-attn": (transformers_packed, 1),
    "ESME (esm-efficient), packed, flash-attn": (esme, 1),
}


@torch.inference_mode()
def measure(name: str, size: str, proteins: list[Record]) -> float:
    """Residues per second of one of PEERS."""
    run, every = PEERS[name]
    found = run(size, (by_length(proteins) if every > 1 and run is not transformers_naive else proteins)[::every])
    torch.cuda.empty_cache()
    return found
