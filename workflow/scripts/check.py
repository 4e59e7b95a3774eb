"""Check that every shard is done and sound, by the same model and settings; sum up, or say what has to be done again.

Shards that ran out of memory or are damaged lose their folder, so that the next run does exactly them again.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqmill import cli, results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folders", nargs="+", type=Path, required=True, help="one folder per shard, in order")
    parser.add_argument("--records", type=Path, required=True, help="records.parquet of shard.py")
    parser.add_argument("--oom", type=Path, required=True, help="where out-of-memory diagnoses go")
    parser.add_argument("--output", type=Path, required=True, help="table of the shards (TSV)")
    args = parser.parse_args()
    cli.set_up_logging()
    results.collect_ooms(args.folders, args.oom)
    summary = results.check(args.folders, args.records)
    results.write_summary(summary, args.output)
    results.remove_partials(args.folders)
    print(summary.to_string(index=False))


if __name__ == "__main__":
    cli.run(main)
