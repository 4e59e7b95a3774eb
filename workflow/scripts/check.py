"""Check that every shard is complete, undamaged and made with the same model and settings; write a summary of them.

The folders of shards that ran out of memory or are damaged are removed, so that the next run repeats exactly these.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqmill import cli
from seqmill.outputs import oom_reports, verify


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folders", nargs="+", type=Path, required=True, help="one folder per shard, in order")
    parser.add_argument("--records", type=Path, required=True, help="records.parquet of shard.py")
    parser.add_argument("--oom", type=Path, required=True, help="where out-of-memory diagnoses go")
    parser.add_argument("--output", type=Path, required=True, help="table of the shards (TSV)")
    args = parser.parse_args()
    cli.set_up_logging()
    oom_reports.collect(args.folders, args.oom)
    summary = verify.check(args.folders, args.records)
    verify.write_summary(summary, args.output)
    verify.remove_partials(args.folders)
    print(verify.shown(summary))


if __name__ == "__main__":
    cli.run(main)
