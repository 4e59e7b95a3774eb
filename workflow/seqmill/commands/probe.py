"""Score a linear probe on the vectors of a result: what of your labels can be read from each layer and pooling.

Logistic regression, or ridge regression for numbers, on standardised vectors, cross-validated; the regularisation is
chosen inside the training folds. Beside it stand the same model on the composition and length of the sequences, and one
without features. The same sequence is never on both sides of a split. Writes probe.tsv, folds.tsv, probe.svg and probe.png.
"""

import argparse
from pathlib import Path

from seqmill.analysis import labels, picture
from seqmill.analysis.probe import Probe, probe
from seqmill.files import write_atomically


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--embeddings", type=Path, required=True, metavar="RESULT", help="folder of results, or its embeddings.h5")
    add(
        "--labels",
        type=Path,
        metavar="TABLE",
        help="table with the columns id and one with labels, separated by tabs (commas: .csv); perhaps split (train and test, "
        "or numbers of folds) and group (sequences that must stay together, such as a cluster) "
        "[the FASTA's headers: TARGET=... and perhaps SET=...]",
    )
    add("--label", metavar="COLUMN", help="which column holds the labels [label, target, or the only one]")
    add("--output", type=Path, required=True, metavar="FOLDER", help="folder for the tables and the picture")
    add(
        "--fasta",
        nargs="+",
        type=Path,
        help="the sequences that were embedded, for their composition [the shards of the run, where they are]",
    )
    add("--task", choices=labels.TASKS, help="[classification for words and few whole numbers, else regression]")
    add("--folds", type=int, default=5, help="folds, where the labels have no splits [%(default)s]")
    add(
        "--most",
        type=int,
        default=10_000,
        metavar="N",
        help="labelled sequences that are used at most, drawn at random; bounds the time [%(default)s]",
    )
    add("--seed", type=int, default=0, help="of the folds, and of what is drawn [%(default)s]")


def run(args: argparse.Namespace) -> None:
    found = probe(args.embeddings, args.labels, args.label, args.fasta, args.task, args.folds, args.most, args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    for name, table in (("probe.tsv", found.summary), ("folds.tsv", found.by_fold)):
        with write_atomically(args.output / name) as temporary:
            table.to_csv(temporary, sep="\t", index=False, float_format="%.6g")
    picture.draw(found, args.output)
    print(_shown(found))
    print(f"in {args.output}: probe.tsv, folds.tsv, probe.svg, probe.png")


def _shown(found: Probe) -> str:
    columns = [name for name in found.summary if not name.startswith("fold_")]
    return found.summary[columns].to_string(index=False, na_rep="", float_format="{:.3f}".format)
