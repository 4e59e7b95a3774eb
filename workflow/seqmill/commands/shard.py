"""Check FASTA files and assign their distinct sequences to shards of equal predicted cost.

Sequences that earlier results hold are left out of the shards, and merge takes them from there.
"""

import argparse
from pathlib import Path

from seqmill import settings
from seqmill.errors import UserError
from seqmill.inputs import earlier_rounds, rounds, shards
from seqmill.inputs.sample import Sample
from seqmill.inputs.windows import Treatment
from seqmill.models import registry
from seqmill.outputs import earlier as earlier_results
from seqmill.outputs import reused


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fasta", nargs="+", required=True, help="the sequences, plain or gzip")
    parser.add_argument(
        "--sample",
        nargs="+",
        action="append",
        metavar=("NAME", "FASTA"),
        help="files of --fasta that belong to this sample; repeat it for each",
    )
    parser.add_argument(
        "--earlier",
        nargs="*",
        type=Path,
        default=[],
        metavar="RECORDS",
        help="records.parquet of the rounds of samples before this one, whose sequences are left out",
    )
    settings.add_argument(parser, "reuse")
    parser.add_argument("--shards", type=int, required=True, help="how many shards")
    parser.add_argument(
        "--family",
        choices=[family.name for family in registry.FAMILIES],
        default=registry.FAMILIES[0].name,
        help="of the model, which says what the sequences are and how long each takes [%(default)s]",
    )
    settings.add_argument(parser, "invalid")
    for name in ("duplicate_ids", "long", "max_length", "overlap"):
        settings.add_argument(parser, name)
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for <shard>.fasta, records.parquet and SHA256SUMS"
    )


def run(args: argparse.Namespace) -> None:
    family, samples = registry.by_name(args.family), _samples(args)
    treatment = Treatment.of(args.long, args.max_length, args.overlap, family.trained)
    alphabet, cost = family.treated(treatment)
    records = {name: Sample(paths, alphabet, args.invalid, args.duplicate_ids) for name, paths in samples.items()}
    earlier = earlier_rounds.places(args.earlier) if args.sample else None
    files = earlier_results.located(args.reuse)
    found = earlier_results.common_attributes(files, [path.parent for path in args.earlier])
    places = reused.places(files) if files else None
    print(shards.shard(records, args.shards, args.output, cost, earlier, alphabet, places))
    earlier_results.record(args.output, found)
    if args.sample:
        rounds.write(args.output, samples)


def _samples(args: argparse.Namespace) -> dict[str | None, list[str]]:
    """The files of each sample; all of one without a name where there are no samples."""
    samples = {name: paths for name, *paths in args.sample or [[None, *args.fasta]]}
    named = [path for paths in samples.values() for path in paths]
    if len(samples) < len(args.sample or [0]) or not all(samples.values()) or set(named) != set(args.fasta):
        raise UserError("--sample: name each sample once, with its files; all of them together are those of --fasta")
    return samples
