"""Find a model in a folder, the hub's cache or the hub; verify and record its checksums."""

import argparse
from pathlib import Path

from seqmill import settings
from seqmill.models import hub


def add_arguments(parser: argparse.ArgumentParser) -> None:
    settings.add_argument(parser, "name", required=True)
    settings.add_argument(parser, "revision")
    parser.add_argument("--output", type=Path, required=True, help="record to write (JSON)")


def run(args: argparse.Namespace) -> None:
    found = hub.resolve(args.model, args.revision)
    found.save(args.output)
    print(f"model {found.name}: {found.folder}, checksum {found.checksum}")
