"""Check that every shard is complete, undamaged and made with the same model and settings; write a summary of them.

The folders of shards that ran out of memory or are damaged are removed, so that the next run repeats exactly these.
"""

import argparse
from pathlib import Path

from seqmill.commands import add_shards, folders_of
from seqmill.outputs import oom_reports, verify


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shards(parser)
    parser.add_argument("--output", type=Path, required=True, help="table of the shards (TSV)")
    parser.add_argument("--oom", type=Path, help="where out-of-memory diagnoses go [the folder oom beside the output]")


def run(args: argparse.Namespace) -> None:
    folders = folders_of(args, args.folders)
    oom_reports.collect(folders, args.oom or args.output.parent / "oom")
    summary = verify.check(folders, args.records)
    verify.write_summary(summary, args.output)
    verify.remove_partials(folders)
    print(verify.shown(summary))
