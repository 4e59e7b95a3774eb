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
from seqmill.errors import UserError

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
    add_folders(parser, "--folders", "one folder per shard, in order", required=True)
    parser.add_argument(
        "--records",
        nargs="+",
        type=Path,
        required=True,
        help="records.parquet of the command shard; of several rounds of samples all, in order",
    )


def add_folders(parser: argparse.ArgumentParser, name: str, meaning: str, required: bool = False) -> None:
    """Add two ways of naming folders of shards: one by one with the flag `name`, or all in one folder.

    A command line is too short for the names of thousands.
    """
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument(name, nargs="+", type=Path, default=[], metavar="FOLDER", help=meaning)
    group.add_argument(
        "--embed", type=Path, metavar="FOLDER", help="instead: the folder that holds all of them as 0, 1, 2 ..."
    )
    parser.add_argument("--shards", type=int, metavar="N", help="with --embed: how many there are")
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="R",
        help="with --embed: rounds of samples, whose shards are in its folders 1 to R",
    )


def folders_of(args: argparse.Namespace, named: list[Path]) -> list[Path]:
    """The folders of all shards.

    Args:
        named: those named one by one.

    Raises:
        UserError: there is --shards or --rounds without --embed, or --embed without --shards.
    """
    if args.embed is None:
        if args.shards is not None or args.rounds is not None:
            raise UserError("--shards and --rounds say how many shards there are in --embed; give that, too")
        return named
    if args.shards is None or args.shards < 1 or (args.rounds is not None and args.rounds < 1):
        raise UserError("--embed needs --shards, how many folders there are in it; 1 or more, and --rounds likewise")
    within = [args.embed] if args.rounds is None else [args.embed / str(number + 1) for number in range(args.rounds)]
    return [folder / str(shard) for folder in within for shard in range(args.shards)]


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
        with cli.importing():
            module = importlib.import_module(f"seqmill.commands.{name}")
        formatter = argparse.RawDescriptionHelpFormatter
        parser = argparse.ArgumentParser(prog=program, description=module.__doc__, formatter_class=formatter)
        module.add_arguments(parser)
        args = parser.parse_args(arguments)
        cli.set_up_logging(getattr(args, "verbose", False))
        return module.run(args)

    cli.run(command)
