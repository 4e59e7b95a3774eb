"""The pictures of a result: what the report calls them, and the table that they take colours from."""

from typing import Any

from seqmill.errors import UserError
from seqmill.planning.paths import check_files

# The files that `seqmill figures` writes, without their endings.
WORDS = {
    "lengths": "lengths of the sequences",
    "map": "map of the embeddings",
    "timeline": "shards over time",
    "time": "where the time went",
    "memory": "memory",
    "settings": "settings and versions",
}


def table(config: dict[str, Any], must_exist: bool) -> list[str]:
    """The table to colour the map by, or nothing.

    Args:
        must_exist: refuse a file that does not exist; where another rule makes it, it need not yet.

    Raises:
        UserError: it cannot be an input, or one of results.metadata and results.color is there without the other.
    """
    results = config["results"]
    if (results["metadata"] is None) != (results["color"] is None):
        given, missing = ("color", "metadata") if results["metadata"] is None else ("metadata", "color")
        raise UserError(
            f"configuration: results.{missing} is missing; results.{given} needs it: a table (metadata), and the column of "
            "it to colour the map by (color)"
        )
    return (
        []
        if results["metadata"] is None
        else check_files("configuration: results.metadata", [results["metadata"]], must_exist)
    )


def flags(config: dict[str, Any], path: str) -> list[str]:
    """The flags of the command figures for a table."""
    return [f"--metadata={path}", f"--color={config['results']['color']}"]
