"""Errors of seqmill's packed forward in every dtype and attention kernel that runs here, against float32.

For each: relative L2, the worst protein's and the worst residue's relative L2, the largest absolute difference and the
range of the norm ratio, over the token states of the last layer; and the relative L2 of the worst mean vector.

The reference is transformers' EsmModel one sequence at a time, with its rotary frequencies in float32; or, for models of
all families, seqmill's own forward in float32 with standard attention (`--reference seqmill`), which the tests hold to
the original implementations. `--random` draws models of real sizes.
"""

import argparse
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import random_model
import torch
import transformers
from common import load_model, report, total

from seqmill.engine.assembly import Assembly
from seqmill.engine.batching import PackedBatches
from seqmill.engine.pipeline import BatchResult, Pipeline
from seqmill.engine.tuning import DTYPES
from seqmill.errors import UserError
from seqmill.inputs.fasta import Record, read_records
from seqmill.inputs.sequences import Sequences
from seqmill.models import hub
from seqmill.models.esm2.config import TOKENS
from seqmill.models.family import Model
from seqmill.models.source import Source
from seqmill.options import ATTENTION
from seqmill.outputs import datasets

# Of a batch of the reference where that is seqmill's: small, for float32 and standard attention take memory.
REFERENCE_TOKENS = 8192


def reference_model(folder: str, device: torch.device) -> "transformers.EsmModel":
    """transformers' model in float32 with float32 rotary frequencies; TF32 stays off."""
    reference = transformers.EsmModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False)
    reference = reference.eval().to(device)
    head_dim = reference.config.hidden_size // reference.config.num_attention_heads
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    reference.rotary_embeddings.inv_freq = (1.0 / reference.config.rope_theta**exponents).float().to(device)
    return reference


@torch.inference_mode()
def reference_states(reference: "transformers.EsmModel", sequence: bytes, layer: int = -1) -> torch.Tensor:
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
    batches = packed(model, sequences, max_tokens, device.type == "cuda")
    assembly, parts = Assembly(batches, [dataset]), []

    def keep(result: BatchResult) -> None:
        # A copy, as the memory of the results is used again.
        parts.append(torch.tensor(assembly.add(result)[1][name], dtype=torch.float32))

    pipeline = Pipeline(model, device, [dataset], **how)
    pipeline.run(batches, keep, lambda _: None)
    states = torch.cat(parts).split(dataset.rows(batches.pieces.kept).tolist())
    return [states[place] for place in sequences.places.tolist()]


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


def combinations(device: torch.device, kernels: Sequence[str]) -> Iterator[tuple[str, str, bool]]:
    """(dtype, kernel, compiled) worth trying on this device, in half precision with these kernels."""
    cuda = device.type == "cuda"
    compiled = (False, True) if cuda else (False,)
    yield from itertools.product(("float32",), ("sdpa",), compiled)
    yield from itertools.product(("bfloat16", "float16"), kernels if cuda else ("sdpa",), compiled)


def select(records: list[Record], count: int, longest: int) -> list[Record]:
    """Every n-th record up to a length, so that all lengths take part."""
    fitting = [record for record in records if len(record.sequence) <= longest]
    return fitting[:: max(len(fitting) // count, 1)][:count]


def references(folder: Path, sequences: list[Record], device: torch.device, name: str) -> list[torch.Tensor]:
    """The states in float32, (L, D) each on the host, by transformers or by seqmill."""
    if name == "seqmill":
        model = load_model(folder, torch.float32, device, "sdpa")
        return packed_states(model, Sequences(sequences), device, REFERENCE_TOKENS)
    reference = reference_model(str(folder), device)
    return [reference_states(reference, record.sequence) for record in sequences]


def rows_of(folder: Path, records: list[Record], device: torch.device, args: argparse.Namespace) -> Iterator[dict]:
    """A row per dtype, kernel and set of operators; what does not run here is a row that says why."""
    expected, sequences = references(folder, records, device, args.reference), Sequences(records)
    for dtype, kernel, compiled in combinations(device, args.attention):
        row: dict[str, Any] = {"model": folder.name, "dtype": dtype, "attention": kernel, "compiled": compiled}
        row |= {"sequences": len(records), "letters": total(records)}
        try:
            model = load_model(folder, DTYPES[dtype], device, kernel, compiled)
            row["attention"] = model.kernels.attention.version
            row |= errors(packed_states(model, sequences, device, args.batch_size), expected)
        except Exception as error:  # a kernel that lacks the bias or cannot be compiled, values that are not finite
            row["failed"] = f"{type(error).__name__}: {error}"[:300]
        print(row, flush=True)
        yield row


def read(path: Path, model: Path) -> list[Record]:
    """The records of a FASTA file in the alphabet of a model, but for those that are too long for it."""
    alphabet = Source.of(hub.resolve(str(model))).alphabet
    records = read_records(path, replace(alphabet, longest=None), "replace")
    return [record for record in records if alphabet.longest is None or len(record.sequence) <= alphabet.longest]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", type=Path, nargs="*", default=[], help="checkpoint folders")
    add("--random", nargs="*", choices=random_model.NAMES, default=[], help="models of real sizes, random weights")
    add("--reference", choices=["transformers", "seqmill"], default="transformers", help="[%(default)s]")
    add("--fasta", type=Path, required=True, help="proteins, or nucleotides where the models take these")
    add("--proteins", type=int, default=200, help="how many of the sequences [%(default)s]")
    add("--longest", type=int, default=2500, help="letters [%(default)s]")
    add("--batch-size", type=int, default=16_384)
    add("--dnabert-files", type=Path, help="folder with DNABERT-S's config.json and tokenizer.json")
    add("--attention", nargs="+", choices=ATTENTION[1:], default=ATTENTION[1:], help="kernels in half precision [all]")
    add("--layers", type=int, help="of the random models, instead of their own, for trials")
    add("--output", type=Path)
    args = parser.parse_args()
    if not args.model and not args.random:
        parser.error("give --model or --random")
    if random_model.DNABERT in args.random and args.dnabert_files is None:
        parser.error(f"{random_model.DNABERT} needs --dnabert-files")
    return args


def main() -> None:
    args = arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folders = [*args.model, *(Path(temporary) / name for name in args.random)]
        for folder in folders:
            if folder.name in args.random and not folder.exists():
                how = {"device": device.type, "layers": args.layers, "files": args.dnabert_files}
                random_model.write(folder.name, folder, **how)
            try:
                records = select(read(args.fasta, folder), args.proteins, args.longest)
                rows += rows_of(folder, records, device, args)
            except UserError as error:  # the next model may do
                rows.append({"model": folder.name, "failed": str(error)})
                print(rows[-1], flush=True)
            if device.type == "cuda":
                torch.cuda.empty_cache()
    report("errors", rows, args.output, fasta=args.fasta.name, reference=args.reference)


if __name__ == "__main__":
    main()
