"""Find a model in a folder, the hub's cache or the hub; verify and record its checksums."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqmill import cli, weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="hub id or folder")
    parser.add_argument("--revision", help="hub commit, tag or branch [the checked one of known models, else main]")
    parser.add_argument("--output", type=Path, required=True, help="record to write (JSON)")
    args = parser.parse_args()
    cli.set_up_logging()
    found = weights.resolve(args.model, args.revision)
    found.save(args.output)
    print(f"model {found.name}: {found.folder}, checksum {found.checksum}")


if __name__ == "__main__":
    cli.run(main)
