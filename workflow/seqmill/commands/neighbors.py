"""Find the most similar sequences of a result: to each of its own, to those of a FASTA file, or of another result.

Similarity is the cosine of the stored vectors. The search is exact: every pair is compared, on a GPU or on the CPU. Of
equally similar ones the one that comes first in the result is the better.
"""

import argparse
from pathlib import Path

from seqmill.api.neighbors import DUPLICATES, neighbors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--embeddings", type=Path, required=True, metavar="RESULT", help="folder of results, or its embeddings.h5")
    add(
        "--queries",
        type=Path,
        metavar="FASTA|RESULT",
        help="sequences to look for, which are embedded with the result's own model and settings, or another result of that "
        "model [the result's own sequences, each of which is left out of its own neighbours]",
    )
    add("--ids", nargs="+", metavar="ID", help="only these of the queries")
    add("--k", type=int, default=10, help="neighbours of each query; fewer where there are not so many [%(default)s]")
    add("--output", type=Path, required=True, metavar="TABLE", help="table to write: .tsv, or .parquet for large ones")
    add("--pooling", help="which vectors, where several are stored [mean, or what there is]")
    add("--layer", type=int, help="of which layer, where several are stored [the last]")
    add(
        "--duplicates",
        choices=DUPLICATES,
        default=DUPLICATES[0],
        help="once: of records with the same sequence only the first can be a neighbour, and a record's own duplicates are "
        "left out of its neighbours; all: each can be [%(default)s]",
    )
    add("--model", type=Path, metavar="FOLDER", help="the result's model, if it has been moved")
    add(
        "--device",
        default="auto",
        help="auto, cpu, cuda or cuda:N; auto takes a free GPU if there is one [%(default)s]",
    )


def run(args: argparse.Namespace) -> None:
    neighbors(
        args.embeddings,
        args.queries,
        args.k,
        args.output,
        ids=args.ids,
        pooling=args.pooling,
        layer=args.layer,
        duplicates=args.duplicates,
        model=args.model,
        device=args.device,
    )
