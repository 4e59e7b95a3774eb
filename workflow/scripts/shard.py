"""Check FASTA files and assign their distinct sequences to shards of equal predicted cost."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqmill import cli, options
from seqmill.inputs import shards
from seqmill.inputs.fasta import read_all
from seqmill.models import registry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    families = {family.alphabet.name: family for family in reversed(registry.FAMILIES)}
    parser.add_argument("--fasta", nargs="+", required=True, help="the sequences, plain or gzip")
    parser.add_argument("--shards", type=int, required=True, help="how many shards")
    parser.add_argument(
        "--alphabet",
        choices=list(families),
        default=registry.FAMILIES[0].alphabet.name,
        help="what the sequences are, as the model takes them [%(default)s]",
    )
    options.add_argument(parser, "invalid")
    options.add_argument(parser, "duplicate_ids")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for <shard>.fasta, records.parquet and SHA256SUMS"
    )
    args = parser.parse_args()
    cli.set_up_logging()
    family = families[args.alphabet]
    records = read_all(args.fasta, family.alphabet, args.invalid, args.duplicate_ids)
    print(shards.shard(records, args.shards, args.output, family.cost))


if __name__ == "__main__":
    cli.run(main)
