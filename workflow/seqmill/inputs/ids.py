"""Ids of a record's own: which come more than once, and what becomes of them."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import shorten

from seqmill.errors import UserError
from seqmill.inputs.record import SHOWN, Record, at, setting, shown

# Ids in a message.
LISTED = 10


def with_own_ids(records: Iterable[Record], duplicate_ids: str) -> Iterator[Record]:
    """Yield records so that no two have the same id.

    `duplicate_ids` says what happens to an id that comes again: "error" refuses it, and names all of them when the
    last record has been read; "number" appends _2, _3 and so on, and keeps the id in `Record.renamed_from`.

    Raises:
        UserError: ids are repeated (with duplicate_ids="error").
    """
    places: dict[str, tuple[Path | None, int]] = {}
    numbers: dict[str, int] = {}
    repeated: dict[str, Record] = {}
    for record in records:
        if record.id not in places:
            places[record.id] = record.path, record.line
            yield record
        elif duplicate_ids == "error":
            repeated.setdefault(record.id, record)
        else:
            name = record.id
            while name in places:
                numbers[record.id] = numbers.get(record.id, 1) + 1
                name = f"{record.id}_{numbers[record.id]}"
            places[name] = record.path, record.line
            yield replace(record, id=name, renamed_from=record.id)
    if repeated:
        raise UserError(_describe_repeated(list(repeated.values()), places))


def _describe_repeated(repeated: list[Record], places: dict[str, tuple[Path | None, int]]) -> str:
    """The sentence for ids that come more than once, from the first record that repeats each."""
    path, line = places[repeated[0].id]
    advice = f"give every record its own id, or {setting('duplicate_ids', 'number', path)}"
    if len(repeated) == 1:
        return f"{repeated[0].place} repeats the id of {at(path, line)}; {advice}"
    ids = ", ".join(f"'{shown(record.id, SHOWN)}'" for record in repeated[:LISTED])
    listed = shorten(ids + (", ..." if len(repeated) > LISTED else ""), 150, placeholder=" ...")
    return (
        f"{repeated[0].place} repeats the id of {at(path, line)}; in all {len(repeated):,} ids are repeated: {listed}; "
        f"{advice}"
    )
