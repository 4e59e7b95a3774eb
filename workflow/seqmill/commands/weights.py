"""Find a model in a folder, the hub's cache or the hub; verify and record its checksums."""

import argparse
from pathlib import Path

from seqmill import settings
from seqmill.errors import UserError
from seqmill.models import hub


def add_arguments(parser: argparse.ArgumentParser) -> None:
    settings.add_argument(parser, "name", required=True)
    settings.add_argument(parser, "revision")
    settings.add_argument(parser, "reuse")
    parser.add_argument("--output", type=Path, required=True, help="record to write (JSON)")


def run(args: argparse.Namespace) -> None:
    found = hub.resolve(args.model, args.revision)
    if args.reuse:
        _refuse_other_weights(args.reuse, found.checksum, found.name)
    found.save(args.output)
    print(f"model {found.name}: {found.folder}, checksum {found.checksum}")


def _refuse_other_weights(results: list[str], checksum: str, name: str) -> None:
    """Before anything is computed that would not fit the earlier results."""
    # Only here: it takes HDF5.
    from seqmill.outputs import earlier

    for path in earlier.located(results):
        if earlier.attributes(path)["checksum"] != checksum:
            raise UserError(
                f"reuse: {path} was made with other model weights than those of {name}; name the same model, or take it out "
                "of the list"
            )
