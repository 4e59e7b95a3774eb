"""The JSON schemas that files of the results are held to."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from seqmill.files import read_json

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

FOLDER = Path(__file__).resolve().parents[1] / "schemas"


@cache
def validator(name: str) -> "Validator":
    """Made once for all shards: checking the schema itself takes fifty times as long as a shard's meta.json."""
    # Only here: embed jobs write and need not wait for it.
    import jsonschema

    schema = read_json(FOLDER / f"{name}.schema.json")
    return jsonschema.validators.validator_for(schema)(schema)
