"""The commands of the command line, a module each: its docstring is the help, then `add_arguments` and `run`.

`seqmill NAME` runs them where the package is installed, `python workflow/scripts/NAME.py` in a checkout.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from seqmill import __doc__ as about
from seqmill import __version__, cli

COMMANDS = {
    "plan": "say what a run will take: time, memory, disk",
    "shard": "check FASTA files and split them into shards",
    "embed": "embed one FASTA file, on one GPU or on the CPU",
    "check": "check that all shards are finished, and sum them up",
    "merge": "put the shards' embeddings together, in input order",
    "weights": "find a model, download it if need be, and record its checksums",
    "export": "write a result in a format of other tools",
    "figures": "draw pictures of a result",
    "neighbors": "find the most similar sequences of a result",
    "probe": "score a linear probe on the vectors of a result",
    "show": "show what a result holds and how to read it",
}


def add_shards(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name the shards of a run."""
    parser.add_argument("--folders", nargs="+", type=Path, required=True, help="one folder per shard, in order")
    parser.add_argument(
        "--records",
        nargs="+",
        type=Path,
        required=True,
        help="records.parquet of the command shard; of several rounds of samples all, in order",
    )


def main() -> None:
    """Run the command that the command line names, and exit."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        run(name, arguments, f"seqmill {name}")
    parser = argparse.ArgumentParser(prog="seqmill", description=about, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--version", action="version", version=f"seqmill {__version__}")
    commands = "\n".join(f"{command:10}{meaning}" for command, meaning in COMMANDS.items())
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=commands)
    parser.epilog = "seqmill COMMAND --help says more of each."
    parser.parse_args([name])


def run(name: str, arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """Run one command, and exit.

    Args:
        arguments: those of this process if left out.
        program: what the help calls it; the script's name if left out.
    """

    def command() -> int | None:
        # Only this one: some take a second to import.
        module = importlib.import_module(f"seqmill.commands.{name}")
        formatter = argparse.RawDescriptionHelpFormatter
        parser = argparse.ArgumentParser(prog=program, description=module.__doc__, formatter_class=formatter)
        module.add_arguments(parser)
        args = parser.parse_args(arguments)
        cli.set_up_logging(getattr(args, "verbose", False))
        return module.run(args)

    cli.run(command)
