"""Draw pictures of a result: lengths, a map of the embeddings, where time and memory went, the settings in words.

Each becomes an SVG and a PNG. What cannot be drawn says so in its picture.
"""

import argparse
import logging
from pathlib import Path

from seqmill.commands import add_folders, folders_of
from seqmill.errors import UserError
from seqmill.models import registry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--embeddings", type=Path, required=True, metavar="H5", help="embeddings.h5 of the result")
    add("--index", type=Path, required=True, metavar="PARQUET", help="index.parquet of the result")
    about = (
        "the meta.json of each shard, or the shards' folders; without them there is nothing to say of time and memory"
    )
    add_folders(parser, "--metas", about)
    add(
        "--metadata",
        type=Path,
        metavar="TABLE",
        help="a table (.tsv, .csv, .parquet) with the ids in its column `id`, or else in the first one",
    )
    add("--color", metavar="COLUMN", help="the column of this table to colour the map by [by length]")
    add("--output", type=Path, required=True, metavar="FOLDER", help="folder to write to")


def run(args: argparse.Namespace) -> None:
    if (args.metadata is None) != (args.color is None):
        raise UserError("--metadata and --color belong together: a table, and the column of it to colour the map by")
    # It would tell of its caches, and of the temporary one that it makes where the home folder cannot be written to.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # Only now: --help need not wait for matplotlib.
    from seqmill.outputs.figures import album

    model = album.model_of(args.embeddings)
    family = registry.published_by(model) or registry.of_folder(Path(model))
    members = family.alphabet.members if family else "letters"
    trained = round(family.trained * family.letters_per_token) if family else None
    metas = folders_of(args, args.metas)
    result = album.Result(args.embeddings, args.index, metas, members, args.metadata, args.color, trained)
    album.write(result, args.output)
    print(f"pictures of {args.embeddings} are in {args.output}")
