"""Several inputs in one run: the samples of the configuration, and the rounds in which they were added.

A round is the samples that are new in a run. Its shards hold the sequences that no earlier round has, so that a sample
that is added later computes only what is new, and finished samples stay as they are. Which round a sample belongs to is
recorded when its shards are written, see `seqmill.inputs.rounds`.
"""

import csv
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqmill.errors import UserError
from seqmill.inputs import rounds as records
from seqmill.planning.paths import check_files

# The names of a sample's folder, besides which `results` has these.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
TAKEN = ("shards", "embed", "oom", "summary")
COLUMNS = ("sample", "fasta")


@dataclass(frozen=True)
class Round:
    """The samples that were added together, and the FASTA files of each."""

    samples: dict[str, list[str]]

    @property
    def files(self) -> list[str]:
        return [path for paths in self.samples.values() for path in paths]

    @property
    def flags(self) -> list[str]:
        """The words of the command shard that say which file belongs to which sample."""
        return [word for name, paths in self.samples.items() for word in ("--sample", name, *paths)]


def read_samples(config: dict[str, Any], must_exist: bool) -> dict[str, list[str]] | None:
    """The FASTA files of each sample; None where the configuration has no samples.

    Args:
        must_exist: refuse files that do not exist; where other rules make them, they need not yet.

    Raises:
        UserError: a name that cannot be a folder's, a bad sample sheet, or a file that cannot be an input.
    """
    given = config["fasta"]
    if isinstance(given, str) and given.lower().endswith(".tsv"):
        (sheet,) = check_files("configuration: fasta", [given], must_exist=True)
        where, samples = sheet, _read_sheet(Path(sheet))
    elif isinstance(given, dict):
        where = "configuration: fasta"
        samples = {str(name): [paths] if isinstance(paths, str) else paths for name, paths in given.items()}
    else:
        return None
    for name in samples:
        if not NAME.fullmatch(name) or name.lower() in TAKEN:
            raise UserError(
                f"{where}: '{name}' cannot be the name of a sample, which has its results in a folder of this name; "
                f"use letters, digits, '.', '_' and '-', and none of {', '.join(TAKEN)}"
            )
    if len({name.lower() for name in samples}) < len(samples):
        raise UserError(f"{where}: some names of samples differ in upper and lower case only; rename them")
    return {name: check_files(f"{where}: sample {name}", paths, must_exist) for name, paths in samples.items()}


def _read_sheet(path: Path) -> dict[str, list[str]]:
    """The files of each sample of a sample sheet; a sample with several files has a line for each."""
    samples: dict[str, list[str]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            lines = csv.DictReader(handle, delimiter="\t")
            if missing := [name for name in COLUMNS if name not in (lines.fieldnames or ())]:
                raise UserError(
                    f"{path}: a sample sheet has tabs between its columns and a header with {' and '.join(COLUMNS)}; "
                    f"{' and '.join(missing)} is missing"
                )
            for line in lines:
                if not line["sample"] or not line["fasta"]:
                    raise UserError(f"{path}, line {lines.line_num}: sample or fasta is empty; complete the line")
                samples.setdefault(line["sample"].strip(), []).append(line["fasta"].strip())
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is not a table in text form ({error}); save it as text with tabs") from None
    if not samples:
        raise UserError(f"{path}: lists no samples; give each a line with its name and its FASTA file")
    return samples


def plan_rounds(samples: dict[str, list[str]], shards: Path) -> dict[int, Round]:
    """The rounds by number, from 1: those that are recorded, then one of the samples that are new.

    A sample that the configuration no longer has stays in its round, so that nothing is computed again; its sequences
    are dropped when the round's shards have to be written anew.

    Args:
        shards: the folder with a folder of shards per round.
    """
    planned: dict[int, Round] = {}
    new = dict(samples)
    recorded = records.read_all(shards)
    # Each round leaves out what those before it have: after a gap none can be used.
    for number in itertools.count(1):
        known, is_complete = recorded.get(number, ({}, False))
        kept = {name: new.pop(name, paths) for name, paths in known.items() if name in new or is_complete}
        if not kept:
            break
        planned[number] = Round(kept)
    if new:
        planned[len(planned) + 1] = Round(new)
    return planned


def round_of(sample: str, rounds: dict[int, Round]) -> int:
    """The number of the round that a sample belongs to."""
    return next(number for number, planned in rounds.items() if sample in planned.samples)
