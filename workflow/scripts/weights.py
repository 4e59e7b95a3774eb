"""Find a model in a folder, the hub's cache or the hub; verify and record its checksums."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqmill import cli, options
from seqmill.models import hub


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    options.add_argument(parser, "name", required=True)
    options.add_argument(parser, "revision")
    parser.add_argument("--output", type=Path, required=True, help="record to write (JSON)")
    args = parser.parse_args()
    cli.set_up_logging()
    found = hub.resolve(args.model, args.revision)
    found.save(args.output)
    print(f"model {found.name}: {found.folder}, checksum {found.checksum}")


if __name__ == "__main__":
    cli.run(main)
