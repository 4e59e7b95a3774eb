"""Merge the shards' embeddings: input order, original ids, duplicates restored."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqmill import cli
from seqmill.outputs.merge import merge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folders", nargs="+", type=Path, required=True, help="one folder per shard, in order")
    parser.add_argument("--records", type=Path, required=True, help="records.parquet of shard.py")
    parser.add_argument("--embeddings", type=Path, required=True, help="HDF5 file to write")
    parser.add_argument("--index", type=Path, required=True, help="index to write (parquet)")
    args = parser.parse_args()
    cli.set_up_logging()
    print(merge(args.folders, args.records, args.embeddings, args.index))


if __name__ == "__main__":
    cli.run(main)
