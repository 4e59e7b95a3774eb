"""What values a setting can take, and how config.yaml, the command line, the schema and `Settings` write them."""

import argparse
from dataclasses import dataclass, field
from typing import Any, Protocol


class Kind(Protocol):
    """What values a setting takes, and how each place writes them."""

    def schema(self) -> dict[str, Any]:
        """The JSON schema of its value in config.yaml."""

    def values(self) -> str:
        """Its values in words, behind "give"."""

    def argument(self) -> dict[str, Any]:
        """What argparse's add_argument wants to know."""

    def words(self, flag: str, value: Any) -> list[str]:
        """A value of config.yaml as a flag and its words on the command line."""

    def parsed(self, value: Any) -> Any:
        """A value of config.yaml as `Settings` and the parsed command line have it."""


@dataclass(frozen=True)
class Choice:
    """One of some values; true and false are on and off on the command line."""

    options: tuple[Any, ...]

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.options)}

    def values(self) -> str:
        return _either([_yaml(option) for option in self.options])

    def argument(self) -> dict[str, Any]:
        kind = int if all(type(option) is int for option in self.options) else str
        return {"choices": [self.parsed(option) for option in self.options], "type": kind}

    def words(self, flag: str, value: Any) -> list[str]:
        return [flag, str(self.parsed(value))]

    def parsed(self, value: Any) -> Any:
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


@dataclass(frozen=True)
class Several:
    """One or more of some values, or of whole numbers where `options` is None; in `Settings` a tuple without repeats.

    Attributes:
        names: values of config.yaml that stand for a number.
        least: how many there must be; 0 allows an empty list.
    """

    options: tuple[str, ...] | None = None
    names: dict[str, int] = field(default_factory=dict)
    least: int = 1

    def schema(self) -> dict[str, Any]:
        one = {"enum": list(self.options)} if self.options else {"type": "integer"}
        many = {"type": "array", "items": one, "minItems": self.least, "uniqueItems": True}
        return {"anyOf": [*({"const": name} for name in self.names), one, many]}

    def values(self) -> str:
        if self.options:
            return f"one or a list of {', '.join(self.options)}"
        return ", ".join([*self.names, "a number", "or a list of numbers"])

    def argument(self) -> dict[str, Any]:
        if self.options:
            return {"nargs": "+", "choices": list(self.options)}
        return {"nargs": "+", "type": int, "metavar": "N"}

    def words(self, flag: str, value: Any) -> list[str]:
        return [flag, *map(str, self.parsed(value))]

    def parsed(self, value: Any) -> tuple[Any, ...]:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(dict.fromkeys(self.names.get(item, item) for item in items))


@dataclass(frozen=True)
class Number:
    """A whole number, or auto, which is None in `Settings`."""

    least: int
    metavar: str = "N"

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": self.least}]}

    def values(self) -> str:
        return f"auto or a whole number from {self.least}"

    def argument(self) -> dict[str, Any]:
        return {"type": self._read, "metavar": self.metavar}

    def words(self, flag: str, value: Any) -> list[str]:
        return [flag, str(value)]

    def parsed(self, value: Any) -> int | None:
        return None if value == "auto" else value

    def _read(self, text: str) -> int | None:
        if text == "auto":
            return None
        if not text.isdecimal() or int(text) < self.least:
            raise argparse.ArgumentTypeError(f"'{text}' is neither auto nor a whole number from {self.least}")
        return int(text)


@dataclass(frozen=True)
class Switch:
    """true or false; --name and --no-name on the command line."""

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}

    def values(self) -> str:
        return "true or false"

    def argument(self) -> dict[str, Any]:
        return {"action": argparse.BooleanOptionalAction}

    def words(self, flag: str, value: Any) -> list[str]:
        return [flag if value else f"--no-{flag.removeprefix('--')}"]

    def parsed(self, value: Any) -> bool:
        return value


@dataclass(frozen=True)
class Text:
    """A string, or null where it is `optional`; a list of strings, or either by name, where it may be `several`."""

    words_for: str
    optional: bool = False
    several: bool = False

    def schema(self) -> dict[str, Any]:
        one = {"type": ["string", "null"]} if self.optional else {"type": "string", "minLength": 1}
        many = {"type": "array", "items": one, "minItems": 1, "uniqueItems": True}
        if not self.several:
            return one
        named = {"type": "object", "minProperties": 1, "additionalProperties": {"anyOf": [one, many]}}
        return {"anyOf": [one, many, named]}

    def values(self) -> str:
        return self.words_for

    def argument(self) -> dict[str, Any]:
        return {}

    def words(self, flag: str, value: Any) -> list[str]:
        return [flag, str(value)]

    def parsed(self, value: Any) -> Any:
        return value


@dataclass(frozen=True)
class Paths:
    """Paths, one or a list of them; null is none."""

    words_for: str

    def schema(self) -> dict[str, Any]:
        one = {"type": "string", "minLength": 1}
        return {"anyOf": [{"type": "null"}, one, {"type": "array", "items": one, "uniqueItems": True}]}

    def values(self) -> str:
        return self.words_for

    def argument(self) -> dict[str, Any]:
        return {"nargs": "+", "metavar": "PATH"}

    def words(self, flag: str, value: Any) -> list[str]:
        return [flag, *self.parsed(value)]

    def parsed(self, value: Any) -> tuple[str, ...]:
        return tuple([value] if isinstance(value, str) else value or ())


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _either(values: list[str]) -> str:
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} or {values[-1]}"
