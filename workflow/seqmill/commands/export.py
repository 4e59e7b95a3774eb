"""Write a result in a format of other tools, from finished embeddings: nothing is computed again.

Writes a folder with the format's files, which is complete or not there. README.md says which tool opens which format.
"""

import argparse
from pathlib import Path

from seqmill.outputs.export import export
from seqmill.outputs.formats import FORMATS
from seqmill.outputs.names import INDEX
from seqmill.outputs.opening import find


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--embeddings", type=Path, required=True, help="embeddings.h5, or the folder that it is in")
    add("--index", type=Path, help="index.parquet; if left out, the one beside the embeddings")
    meanings = "; ".join(f"{name}: {form.meaning}" for name, form in FORMATS.items())
    add("--format", choices=FORMATS, required=True, help=meanings)
    add("--output", type=Path, required=True, metavar="FOLDER", help="folder to create")
    add("--fasta", type=Path, nargs="+", default=[], help="the sequences, in the same order; for biotrainer only")


def run(args: argparse.Namespace) -> None:
    embeddings = find(args.embeddings) if args.embeddings.is_dir() else args.embeddings
    beside = embeddings.with_name(INDEX)
    index = args.index or (beside if beside.exists() else None)
    print(export(embeddings, index, args.format, args.output, args.fasta))
