"""The settings for people and editors: the JSON schema, and the table of config/README.md.

`python -m seqmill.planning.manual` (in the folder workflow) writes both; a test holds them to it.
"""

import json
import re
from pathlib import Path
from typing import Any

from seqmill.option import REQUIRED, Option
from seqmill.options import OPTIONS, SECTIONS

ROOT = Path(__file__).resolve().parents[3]
SCHEMA, MANUAL = ROOT / "workflow/seqmill/schemas/config.schema.json", ROOT / "config/README.md"
TABLE = re.compile(r"(?<=<!-- settings -->\n).*?(?=<!-- end of settings -->)", re.DOTALL)


def schema() -> dict[str, Any]:
    """The JSON schema of config.yaml."""
    properties: dict[str, Any] = {}
    for option in OPTIONS:
        own = {"description": option.hint, **option.kind.schema()}
        if option.default is not REQUIRED:
            own["default"] = option.default
        if option.section:
            section = properties.setdefault(option.section, _object(SECTIONS[option.section]))
            section["properties"][option.name] = own
        else:
            properties[option.name] = own
    required = [option.name for option in OPTIONS if option.default is REQUIRED]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "seqmill configuration",
        **_object("config/config.yaml"),
        "required": required,
        "properties": properties,
    }


def _object(description: str) -> dict[str, Any]:
    return {"description": description, "type": "object", "additionalProperties": False, "properties": {}}


def table() -> str:
    """The settings as a Markdown table."""
    lines = ["| key | default | values | what it does |", "|---|---|---|---|"]
    lines += [
        f"| `{option.key}` | {_default(option)} | {option.kind.values()} | {_meaning(option)} |" for option in OPTIONS
    ]
    return "\n".join(lines) + "\n"


def _default(option: Option) -> str:
    if option.default is REQUIRED:
        return "(none)"
    return f"`{json.dumps(option.default)}`".replace('"', "")


def _meaning(option: Option) -> str:
    return f"{option.meaning}. {option.details}".strip() if option.details else f"{option.meaning}."


def written_schema() -> str:
    """The schema as its file has it."""
    return json.dumps(schema(), indent=2) + "\n"


def written_manual(text: str) -> str:
    """config/README.md with the table of now."""
    return TABLE.sub(lambda _: table(), text)


if __name__ == "__main__":
    SCHEMA.write_text(written_schema())
    MANUAL.write_text(written_manual(MANUAL.read_text()))
