"""Errors of seqmill's packed forward against transformers' EsmModel in float32, one sequence at a time.

For every dtype and attention kernel that runs here: relative L2, the worst protein's and the worst residue's relative
L2, the largest absolute difference and the range of the norm ratio, over the residue states of the last layer; and
the relative L2 of the worst mean vector. The reference has its rotary frequencies in float32.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import load_model, read_proteins, report
from transformers import EsmModel

from seqmill.engine.batching import PackedBatches
from seqmill.engine.pipeline import BatchResult, Pipeline
from seqmill.engine.tuning import DTYPES
from seqmill.errors import UserError
from seqmill.inputs.fasta import Record
from seqmill.inputs.sequences import Sequences
from seqmill.models.esm2.config import TOKENS
from seqmill.models.family import Model
from seqmill.options import ATTENTION
from seqmill.outputs import datasets


def reference_model(folder: str, device: torch.device) -> EsmModel:
    """transformers' model in float32 with float32 rotary frequencies; TF32 stays off."""
    reference = EsmModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval().to(device)
    head_dim = reference.config.hidden_size // reference.config.num_attention_heads
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    reference.rotary_embeddings.inv_freq = (1.0 / reference.config.rope_theta**exponents).float().to(device)
    return reference


@torch.inference_mode()
def reference_states(reference: EsmModel, sequence: bytes, layer: int = -1) -> torch.Tensor:
    """transformers' residue states of one sequence by itself, (L, D) float32 on the host."""
    tokens = torch.tensor([[TOKENS.index(token) for token in ("<cls>", *sequence.decode(), "<eos>")]])
    tokens = tokens.to(reference.device)
    output = reference(tokens, attention_mask=torch.ones_like(tokens), output_hidden_states=True)
    return output.hidden_states[layer][0, 1:-1].cpu()


def packed_states(
    model: Model,
    sequences: Sequences,
    device: torch.device,
    max_tokens: int,
    layer: int = -1,
    name: str = "residues",
    **how: Any,
) -> list[torch.Tensor]:
    """One dataset per row of the file, as float32: (L, D) where it is per token, else (1, D).

    Args:
        how: streams and pin_memory of the pipeline.
    """
    dtype = str(next(iter(model.parameters())).dtype).removeprefix("torch.")
    layers = datasets.resolve_layers([layer], model.config.layer_count)
    (dataset,) = datasets.resolve(layers, [name], model.config.width, dtype)
    states: dict[int, torch.Tensor] = {}

    def keep(result: BatchResult) -> None:
        values = torch.from_numpy(result.values[name]).float()
        parts = values.split(dataset.rows(result.batch.content_counts).tolist())
        states.update(zip(result.batch.rows.tolist(), parts, strict=True))

    pipeline = Pipeline(model, device, [dataset], **how)
    pipeline.run(packed(model, sequences, max_tokens, device.type == "cuda"), keep, lambda _: None)
    return [states[row] for row in sequences.in_file_order(sequences.rows).tolist()]


def packed(model: Model, sequences: Sequences, max_tokens: int, fill: bool) -> PackedBatches:
    """The sequences in batches as a job packs them."""
    return PackedBatches(sequences, model.tokenizer.tokens(sequences), model.tokenizer, max_tokens, fill)


def errors(found: list[torch.Tensor], expected: list[torch.Tensor]) -> dict[str, float]:
    """The table's columns."""
    a, b = torch.cat(found).double(), torch.cat(expected).double()
    ratio = a.norm(dim=1) / b.norm(dim=1)
    residue = (a - b).norm(dim=1) / b.norm(dim=1)
    pairs = list(zip(found, expected, strict=True))
    protein = max(float((x.double() - y.double()).norm() / y.double().norm()) for x, y in pairs)
    means = [(x.double().mean(0), y.double().mean(0)) for x, y in pairs]
    return {
        "relative_L2": float((a - b).norm() / b.norm()),
        "worst_protein": protein,
        "worst_residue": float(residue.max()),
        "worst_mean_vector": max(float((x - y).norm() / y.norm()) for x, y in means),
        "max_abs": float((a - b).abs().max()),
        "norm_ratio_min": float(ratio.min()),
        "norm_ratio_max": float(ratio.max()),
    }


def combinations(device: torch.device) -> Iterator[tuple[str, str, bool]]:
    """(dtype, kernel, compiled) worth trying on this device."""
    cuda = device.type == "cuda"
    compiled = (False, True) if cuda else (False,)
    yield from itertools.product(("float32",), ("sdpa",), compiled)
    yield from itertools.product(("bfloat16", "float16"), ATTENTION[1:] if cuda else ("sdpa",), compiled)


def select(path: Path, count: int, longest: int) -> list[Record]:
    """Every n-th protein of the file up to a length, so that all lengths take part."""
    proteins = [protein for protein in read_proteins(path) if len(protein.sequence) <= longest]
    return proteins[:: max(len(proteins) // count, 1)][:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--fasta", type=Path, required=True)
    parser.add_argument("--proteins", type=int, default=200)
    parser.add_argument("--longest", type=int, default=2500)
    parser.add_argument("--batch-size", type=int, default=16_384)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    proteins = select(args.fasta, args.proteins, args.longest)
    sequences = Sequences(proteins)
    reference = reference_model(args.model, device)
    expected = [reference_states(reference, protein.sequence) for protein in proteins]
    rows: list[dict[str, Any]] = []
    for dtype, kernel, compiled in combinations(device):
        row: dict[str, Any] = {"dtype": dtype, "attention": kernel, "compiled": compiled}
        try:
            model = load_model(args.model, DTYPES[dtype], device, kernel, compiled)
            row["attention"] = model.kernels.attention.version
            states = packed_states(model, sequences, device, args.batch_size)
            row |= errors(states, expected)
        except UserError as error:
            row["failed"] = str(error)
        rows.append(row)
    about = {"model": args.model, "fasta": args.fasta.name, "proteins": len(sequences)}
    report("errors", rows, args.output, **about, residues=int(sequences.offsets[-1]))


if __name__ == "__main__":
    main()
