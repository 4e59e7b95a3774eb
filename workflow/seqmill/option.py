"""What a setting is."""

from dataclasses import dataclass
from typing import Any

from seqmill.kinds import Kind

REQUIRED = object()


@dataclass(frozen=True)
class Option:
    """One setting.

    Attributes:
        section, name: where config.yaml has it; section "" is its top level.
        default: as config.yaml would write it; REQUIRED where there is none.
        meaning: what it does, behind the values.
        details: what the command line's help and the manual say besides.
        changes_result: whether it can change a byte of the result, and not only speed or memory.
        flag: of embed.py; None where embed.py has no use for it.
    """

    section: str
    name: str
    kind: Kind
    default: Any
    meaning: str
    details: str = ""
    changes_result: bool = False
    flag: str | None = None

    @property
    def key(self) -> str:
        """As the manual writes it: `model.dtype`."""
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def destination(self) -> str:
        """The attribute of `Settings` and of the parsed command line."""
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def hint(self) -> str:
        """What a user can write: for messages and the schema."""
        return f"give {self.kind.values()}: {self.meaning}"

    def words(self, value: Any) -> list[str]:
        """The command line that says what config.yaml says."""
        return self.kind.words(self.flag, value)
