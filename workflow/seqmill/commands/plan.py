"""Say what a run will compute, how long it takes, and what memory and disk it needs, before anything runs.

Reads the input once, in seconds for a million records, and asks no network. Times are of measured rates of GPUs, of this
machine's CPUs, or, best of all, of shards that this model has finished here.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from seqmill.errors import UserError, first_line
from seqmill.files import write_atomically
from seqmill.options import OPTIONS
from seqmill.planning import config as configuration
from seqmill.planning import plan
from seqmill.planning.plan_text import content, describe

# Settings that matter for a plan and can be given without a configuration, as embed.py's flags have them.
FLAGS = {
    "--model": "model.name",
    "--family": "model.family",
    "--dtype": "model.dtype",
    "--layers": "model.layers",
    "--pooling": "model.pooling",
    "--storage": "model.storage",
    "--long": "sequences.long",
    "--max-length": "sequences.max_length",
    "--overlap": "sequences.overlap",
    "--shards": "shards",
    "--gpus": "performance.gpus",
    "--batch-size": "performance.batch_size",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--config",
        type=Path,
        metavar="YAML",
        help="a configuration, such as config/config.yaml; - reads it from standard input",
    )
    add("--fasta", nargs="+", metavar="FASTA", help="the sequences, instead of the configuration's")
    meanings = {option.key: option.meaning for option in OPTIONS}
    for flag, key in FLAGS.items():
        several = "+" if key in ("model.layers", "model.pooling") else None
        add(flag, nargs=several, help=f"{meanings[key]}; instead of the configuration's".replace("%", "%%"))
    add("--gpu", metavar="NAME", help="the card to plan for, such as H100; left out: this machine's, or its CPUs")
    add(
        "--results",
        type=Path,
        default=Path("results"),
        help="folder of the run, whose finished shards tell the speed [%(default)s]",
    )
    add("--json", action="store_true", help="print JSON")
    add("--output", type=Path, metavar="FILE", help="write the plan to a file, too")


def run(args: argparse.Namespace) -> None:
    made = plan.make(_config(args), args.results, args.gpu)
    text = json.dumps(content(made), indent=2) if args.json else describe(made)
    print(text)
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(args.output) as temporary:
            temporary.write_text(f"{text}\n")


def _config(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration, with the flags in it, checked and complete."""
    config = _read(args.config) if args.config is not None else {}
    if args.fasta is not None:
        config["fasta"] = args.fasta
    for flag, key in FLAGS.items():
        value = getattr(args, flag.removeprefix("--").replace("-", "_"))
        section, _, name = key.rpartition(".")
        if value is not None:
            place = config
            if section:
                place = config[section] = dict(config.get(section) or {})
            place[name] = value
    if "fasta" not in config:
        raise UserError("there is no input; give --config or --fasta")
    return configuration.check(config)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
        config = yaml.safe_load(text) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not YAML ({first_line(error)}); correct it") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: is not a configuration; it must have keys such as fasta and model")
    return config
