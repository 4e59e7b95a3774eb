"""Check protein FASTA files and deal their distinct sequences to shards of equal predicted cost."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqmill import cli, shards
from seqmill.fasta import read_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fasta", nargs="+", required=True, help="protein sequences, plain or gzip")
    parser.add_argument("--shards", type=int, required=True, help="how many shards")
    parser.add_argument(
        "--invalid",
        choices=["error", "replace"],
        default="error",
        help="letters that are no amino acids: refuse them, or make them X and count them [%(default)s]",
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for <shard>.fasta, records.parquet and SHA256SUMS"
    )
    args = parser.parse_args()
    cli.set_up_logging()
    print(shards.shard(read_all(args.fasta, args.invalid), args.shards, args.output))


if __name__ == "__main__":
    cli.run(main)
