"""The settings of config.yaml as keywords: checked by the same rules, with a sentence for each mistake."""

import difflib
import os
from collections.abc import Mapping
from typing import Any

from seqmill.errors import UserError
from seqmill.kinds import Switch, Text
from seqmill.option import Option
from seqmill.options import OPTIONS
from seqmill.settings import Settings

# What config.yaml has no use for, but the command has.
OWN = (
    Option(
        "",
        "device",
        Text("auto, cpu, cuda or cuda:N"),
        "auto",
        "auto takes a free GPU if there is one",
        flag="--device",
    ),
    Option("", "overwrite", Switch(), False, "replace a finished result of other settings", flag="--overwrite"),
)
KNOWN = {option.destination: option for option in (*OPTIONS, *OWN) if option.flag}


def checked(given: Mapping[str, Any]) -> Settings:
    """Settings by the names and values of config.yaml, as a job takes them; those left out have their defaults.

    Raises:
        UserError: there is no such setting, or a value is not one of it.
    """
    return Settings(**{name: _parsed(name, value) for name, value in given.items()}, index=True)


def _parsed(name: str, value: Any) -> Any:
    # Only here: the command checks with argparse and need not wait for it.
    from jsonschema import Draft202012Validator

    if name not in KNOWN:
        close = difflib.get_close_matches(name, KNOWN, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(KNOWN)}"
        raise UserError(f"there is no setting {name}; {hint}")
    option, plain = KNOWN[name], _plain(value)
    if not Draft202012Validator(option.kind.schema()).is_valid(plain):
        raise UserError(f"{name} cannot be {value!r}; {option.hint}")
    return option.kind.parsed(plain)


def _plain(value: Any) -> Any:
    """What YAML would have in the place of a path, a tuple, a range, or a number or array of NumPy."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple | range | set):
        return [os.fspath(item) if isinstance(item, os.PathLike) else item for item in value]
    return value.tolist() if hasattr(value, "tolist") else value
