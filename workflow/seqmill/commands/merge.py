"""Merge the shards' embeddings: input order, original ids, duplicates restored."""

import argparse
from pathlib import Path

from seqmill.commands import add_shards, folders_of
from seqmill.outputs.merge import merge


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shards(parser)
    parser.add_argument("--embeddings", type=Path, required=True, help="HDF5 file to write")
    parser.add_argument("--index", type=Path, required=True, help="index to write (parquet)")
    parser.add_argument("--sample", metavar="NAME", help="only the records of this sample")


def run(args: argparse.Namespace) -> None:
    print(merge(folders_of(args, args.folders), args.records, args.embeddings, args.index, args.sample))
