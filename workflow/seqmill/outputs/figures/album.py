"""All pictures of a result, in a folder."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as parquet
from matplotlib.figure import Figure

from seqmill.errors import UserError, first_line
from seqmill.outputs.embedding_file import Damaged, EmbeddingFile
from seqmill.outputs.figures import (
    embedding_map,
    lengths,
    memory,
    settings_table,
    shards,
    spent,
    style,
    timeline,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What the pictures are made of.

    Attributes:
        embeddings, index: a merged result, or that of `seqmill embed`.
        metas: folders of its shards, or the meta.json in them; none where they are gone.
        members: what the letters of its sequences are: residues, or bases.
        table, column: a table that says more of the sequences, and the column to colour the map by; both or neither.
        limit: letters of the longest sequences that the model was trained on; None where that is not known.
    """

    embeddings: Path
    index: Path
    metas: Sequence[Path] = ()
    members: str = "residues"
    table: Path | None = None
    column: str | None = None
    limit: int | None = None


def write(result: Result, folder: Path) -> None:
    """Write each picture as SVG and PNG.

    Raises:
        UserError: a file is missing, damaged or does not belong to the others, or the disk is full.
    """
    _refuse_unfit(result)
    style.prepare()
    found = shards.read_all(result.metas)
    folder.mkdir(parents=True, exist_ok=True)
    for name, (title, draw) in _pictures(result, found).items():
        try:
            made = draw()
        except style.NotDrawn as reason:
            log.warning("%s: there is no picture, as %s", name, reason)
            made = style.note(title, f"There is no picture here: {reason}.")
        style.save(made, folder, name)
        log.info("%s", folder / f"{name}.svg")


def _pictures(result: Result, found: list[shards.Shard]) -> dict[str, tuple[str, Callable[[], Figure]]]:
    """The pictures by the names of their files: their titles, and what draws them."""
    of = result
    return {
        "lengths": (lengths.TITLE, lambda: lengths.draw(lengths.count(of.index), of.members, of.limit)),
        "map": (
            embedding_map.TITLE,
            lambda: embedding_map.draw(of.embeddings, of.index, of.members, of.table, of.column),
        ),
        "timeline": (timeline.TITLE, lambda: timeline.draw(found)),
        "time": (spent.TITLE, lambda: spent.draw(found)),
        "memory": (memory.TITLE, lambda: memory.draw(found)),
        "settings": (
            settings_table.TITLE,
            lambda: settings_table.draw(settings_table.describe(of.embeddings, found, of.members)),
        ),
    }


def model_of(embeddings: Path) -> str:
    """The name of the model, as it was configured.

    Raises:
        UserError: the file is missing or damaged.
    """
    with _opened(embeddings) as file:
        return str(file.attributes.get("model", ""))


def _opened(embeddings: Path) -> EmbeddingFile:
    try:
        return EmbeddingFile(embeddings)
    except FileNotFoundError:
        raise UserError(f"{embeddings}: there is no such file; give the embeddings.h5 of a result") from None
    except Damaged as error:
        raise UserError(f"{embeddings}: is not a result of seqmill, or a damaged one ({error})") from None


def _refuse_unfit(result: Result) -> None:
    """Compare the two files of the result.

    Raises:
        UserError: one is missing or damaged, or they are of two results.
    """
    with _opened(result.embeddings) as file:
        count = len(file.lengths)
    try:
        records = parquet.ParquetFile(result.index).metadata.num_rows
    except FileNotFoundError:
        raise UserError(f"{result.index}: there is no such file; give the index.parquet of the result") from None
    except Exception as error:  # pyarrow has several for a file that is damaged
        raise UserError(
            f"{result.index}: is not the index of a result, or a damaged one ({first_line(error)})"
        ) from None
    if records != count:
        raise UserError(
            f"{result.index}: lists {records:,} sequences, but {result.embeddings} holds {count:,}; give the two files of "
            "one result"
        )
