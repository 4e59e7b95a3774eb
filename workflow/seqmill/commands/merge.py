"""Merge the shards' embeddings: input order, original ids, duplicates restored."""

import argparse
from pathlib import Path

from seqmill.outputs.merge import merge


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folders", nargs="+", type=Path, required=True, help="one folder per shard, in order")
    parser.add_argument(
        "--records",
        nargs="+",
        type=Path,
        required=True,
        help="records.parquet of the command shard; of several rounds of samples all, in order",
    )
    parser.add_argument("--embeddings", type=Path, required=True, help="HDF5 file to write")
    parser.add_argument("--index", type=Path, required=True, help="index to write (parquet)")
    parser.add_argument("--sample", metavar="NAME", help="only the records of this sample")


def run(args: argparse.Namespace) -> None:
    print(merge(args.folders, args.records, args.embeddings, args.index, args.sample))
