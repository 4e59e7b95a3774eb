"""How fast the whole embed step is, against the GPU's own ceilings and against other tools, in one run on one GPU.

Measures the ceilings, the forward alone, the peers that are installed, and scripts/embed.py from a shard's FASTA to the
closed embeddings.h5, for models of real sizes with random weights. Utilisation is the operations that the residues and
their two special tokens need, per second of steady state, over the sustained rate of matrix products.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import peers
import random_model
import torch
from bench import Bench, name_of
from common import ROOT, by_length, load_model, read_proteins, report
from errors import packed

from seqmill.inputs.fasta import Record
from seqmill.inputs.sequences import Sequences
from seqmill.kernels.timing import gpu_seconds
from seqmill.models.family import flops

# How often the first input is repeated: enough for ten seconds, for the model that the peers have a minute.
REPEATS = {"8M": 15, "35M": 8, "150M": 4, "650M": 7, "3B": 1, "15B": 1}
# The large models get a part of it.
EVERY = {"3B": 3, "15B": 16}
PEER_SIZE = "650M"


class EngineBench(Bench):
    """Rows of ESM-2."""

    @torch.inference_mode()
    def forward(self, size: str, proteins: list[Record], source: str) -> None:
        """One row: the forward alone, over batches that lie on the GPU."""
        device = torch.device("cuda")
        model = load_model(self.checkpoint(size), torch.bfloat16, device, "triton", fused=True)
        batches = packed(model, Sequences(proteins), 32_768, fill=True)
        inputs = [batch.to(device) for batch in batches]
        last = [model.config.layer_count]
        took = gpu_seconds(lambda: [model(batch, last) for batch in inputs], 2)
        lengths = np.diff(batches.sequences.offsets)
        self.add(
            "seqmill, forward alone",
            size,
            source,
            residues_per_s=round(lengths.sum() / took),
            **{"TFLOP/s": round(flops(model.config, batches.token_counts) / took / 1e12, 2)},
            attention=model.kernels.attention.version,
            batch_size=32_768,
            every=2 * EVERY.get(size, 1),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    default = ROOT / "resources/ecoli_k12_UP000000625.fasta.gz"
    add("--fasta", type=Path, nargs="+", default=[default], help="the first is for all models and peers")
    add("--sizes", nargs="*", choices=random_model.SIZES, default=["650M", "3B", "150M", "35M", "8M"])
    add("--peers", nargs="*", choices=peers.PEERS, default=list(peers.PEERS), help="what to compare with")
    add("--results", type=Path, help="folder for the results, such as a RAM disk [the system's temporary folder]")
    add("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    first, *others = [read_proteins(path) for path in args.fasta]
    source, *names = map(name_of, args.fasta)
    with tempfile.TemporaryDirectory() as folder:
        bench = EngineBench(args, Path(folder), EVERY)
        for name in args.peers:
            try:
                found = peers.measure(name, PEER_SIZE, first)
                speed = {"residues_per_s": round(found.letters), "tokens_per_s": round(found.tokens)}
                bench.add(name, PEER_SIZE, source, **speed, every=peers.PEERS[name][1])
            except Exception as error:  # a peer that is not installed or fails is part of the result
                bench.add(name, PEER_SIZE, source, failed=f"{type(error).__name__}: {error}"[:300])
        for size in args.sizes:
            proteins = by_length(first)[:: EVERY.get(size, 1)]
            bench.forward(size, proteins[::2], source)
            bench.embed("seqmill", size, bench.shard(proteins, REPEATS[size], source))
        if PEER_SIZE in args.sizes:
            shards = [bench.shard(first, 1, source)]
            shards += [bench.shard(proteins, 1, name) for proteins, name in zip(others, names, strict=True)]
            bench.embed(
                "seqmill, every residue's state in float16",
                *(PEER_SIZE, bench.shard(first, 2, source), "--pooling", "mean", "residues", "--pin-memory"),
            )
            for shard in shards[1:]:
                bench.embed("seqmill", PEER_SIZE, shard)
            bench.embed("seqmill, expandable segments", PEER_SIZE, shards[-1], "--expandable-segments")
            bench.embed("seqmill, kernels not compiled", PEER_SIZE, shards[-1], "--compile", "off")
            bench.embed("seqmill, standard attention", PEER_SIZE, shards[-1], "--attention", "sdpa")
        bench.finish()
    report("engine", bench.rows, args.output, ceilings=bench.ceilings)


if __name__ == "__main__":
    main()
