"""The settings of one job, from the command line or from a program: `Settings` has an attribute per flag of embed.py."""

import argparse
from collections.abc import Iterator
from dataclasses import make_dataclass
from typing import Any

from seqmill.option import Option
from seqmill.options import OPTIONS


def embed_options(changes_result: bool) -> Iterator[Option]:
    """The settings that are flags of embed.py."""
    return (option for option in OPTIONS if option.flag and option.changes_result == changes_result)


def add_arguments(parser: argparse._ActionsContainer, changes_result: bool) -> None:
    """Add the flags of embed.py's settings of one sort to a parser or a group of it."""
    for option in embed_options(changes_result):
        add_argument(parser, option.name)


def add_argument(parser: argparse._ActionsContainer, name: str, required: bool = False) -> None:
    """Add the flag of one setting to a parser or a group of it."""
    option = next(option for option in OPTIONS if option.name == name)
    default = option.kind.parsed(option.default)
    shown = "" if required or option.default is None else f" [{' '.join(option.words(option.default)[1:]) or 'off'}]"
    text = f"{option.meaning}. {option.details}" if option.details else option.meaning
    details = {"default": default, "required": required, "dest": option.destination}
    parser.add_argument(option.flag, help=f"{text}{shown}".replace("%", "%%"), **details, **option.kind.argument())


class _FromArguments:
    @classmethod
    def of(cls, args: argparse.Namespace) -> "Settings":
        """What a parsed command line asks for."""
        given = {name: getattr(args, name) for name in cls.__dataclass_fields__ if hasattr(args, name)}
        return cls(**{name: tuple(dict.fromkeys(v)) if isinstance(v, list) else v for name, v in given.items()})


# What one embed job was asked for: the settings that embed.py has flags for, as `Kind.parsed` gives them, and
#   device: auto, cpu, cuda or cuda:N;
#   keep_partial: keep the partial result when the shard is finished, too;
#   overwrite: replace a finished result of other settings;
#   index: write index.parquet, too; a shard has records.parquet instead;
#   fitting: attributes of an earlier result, whose settings the result must have, see `outputs.earlier`.
Settings = make_dataclass(
    "Settings",
    [
        *((option.destination, Any, option.kind.parsed(option.default)) for option in OPTIONS if option.flag),
        ("device", str, "auto"),
        ("keep_partial", bool, False),
        ("overwrite", bool, False),
        ("index", bool, False),
        ("fitting", Any, None),
    ],
    bases=(_FromArguments,),
    frozen=True,
)
