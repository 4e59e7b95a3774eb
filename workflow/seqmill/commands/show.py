"""Show what a result holds, where it is and how to read it."""

import argparse
from pathlib import Path

import h5py
import pandas as pd

READ = """\
Read it in Python, where seqmill is installed (pip install .):

    import seqmill
    e = seqmill.open("{embeddings}")
    e["{name}"]   # its vector; e.to_frame() has all, e.index what is known of each

Or without it:

    import h5py, pandas as pd
    index = pd.read_parquet("{index}")
    vectors = h5py.File("{embeddings}")["{dataset}"][:]   # row i belongs to index.id[i]

For your own sequences edit config/config.yaml (fasta, model.name) and run: snakemake --profile profiles/local
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--embeddings", type=Path, required=True)
    parser.add_argument("--index", type=Path, required=True)


def run(args: argparse.Namespace) -> None:
    index = pd.read_parquet(args.index)
    print(f"\n{len(index):,} sequences are embedded.\n")
    with h5py.File(args.embeddings) as file:
        for name, dataset in file.items():
            print(f"  {args.embeddings}  {name:8} {' x '.join(map(str, dataset.shape))}, {dataset.dtype}")
        print(f"  {args.index}  {', '.join(index.columns)}\n")
        print(f"model {file.attrs['model']}, {file.attrs['dtype']}, attention {file.attrs['attention']}\n")
        # Of several layers, or of several poolings, the first will do for an example.
        dataset = next((name for name in file if name.startswith("mean")), "mean")
    name = next(iter(index["id"]), "id")
    print(READ.format(index=args.index, embeddings=args.embeddings, name=name, dataset=dataset))
