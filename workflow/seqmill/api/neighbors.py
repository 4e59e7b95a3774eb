"""The sequences of a result that are most similar to others, or to one another, in Python and for the command.

import seqmill

table = seqmill.neighbors("results", k=5)                       # of each sequence among the others
table = seqmill.neighbors("results", "my_proteins.fasta", k=5)  # of other sequences, embedded as the result was
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from seqmill.analysis import tables
from seqmill.analysis.vectors import Vectors
from seqmill.api.embed import embed
from seqmill.errors import UserError
from seqmill.inputs.fasta import look_at
from seqmill.inputs.windows import FULL, WINDOW, Treatment
from seqmill.models import hub
from seqmill.outputs.names import EMBEDDINGS

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

DUPLICATES = ("once", "all")


def neighbors(
    embeddings: str | os.PathLike[str],
    queries: str | os.PathLike[str] | None = None,
    k: int = 10,
    output: str | os.PathLike[str] | None = None,
    *,
    ids: Sequence[str] | None = None,
    pooling: str | None = None,
    layer: int | None = None,
    duplicates: str = "once",
    model: str | os.PathLike[str] | None = None,
    device: str = "auto",
) -> "pd.DataFrame | None":
    """The k most similar sequences of a result to each query: by the cosine of their vectors, exactly.

    Args:
        embeddings: a folder of results, or its embeddings.h5.
        queries: a FASTA file, which is embedded with the result's model and settings first, or another result of that
            model; None are the result's own sequences, each of which is left out of its own neighbours.
        output: a file for the table, .tsv or .parquet, which is written a part at a time.
        ids: only these of the queries.
        pooling, layer: which of the stored vectors; None is mean, or what there is, and the last layer.
        duplicates: "once": of records with the same sequence only the first can be a neighbour, and a record's own
            duplicates are left out of its neighbours; "all": each can be.
        model: the folder of the result's model, if it has been moved.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        The table, with the columns query, rank (from 1), neighbor, similarity, query_length, neighbor_length,
        query_description and neighbor_description; None with `output`.

    Raises:
        UserError: there is no such result, dataset, id or model, or the queries' vectors cannot be compared with it.
        OutOfMemory: memory ran out while the queries were embedded.
    """
    _check(k, duplicates, ids)
    target = Path(output) if output is not None else None
    if target is not None:
        # Before anything is computed.
        tables.check_name(target)
        target.parent.mkdir(parents=True, exist_ok=True)
    # Only now: it imports torch.
    from seqmill.analysis.neighbors import SCHEMA
    from seqmill.analysis.neighbors import neighbors as found
    from seqmill.engine.lease import lease

    with (
        Vectors(embeddings, pooling, layer) as database,
        _asked(queries, database, model, device, target) as asked,
        lease(device) as where,
    ):
        wanted = None if ids is None else list(dict.fromkeys(ids))
        parts = found(database, asked, k, where, duplicates == "all", wanted)
        if target is None:
            return pa.concat_tables([SCHEMA.empty_table(), *parts]).to_pandas()
        rows = tables.write(target, SCHEMA, parts)
    log.info("%s: %s rows", target, f"{rows:,}")
    return None


def _check(k: int, duplicates: str, ids: Sequence[str] | None) -> None:
    if k < 1:
        raise UserError(f"k is {k}; give a whole number from 1")
    if duplicates not in DUPLICATES:
        raise UserError(f"duplicates cannot be {duplicates}; it is one of {' and '.join(DUPLICATES)}")
    if isinstance(ids, str):
        raise UserError("ids: give a list of them")


@contextmanager
def _asked(
    queries: str | os.PathLike[str] | None,
    database: Vectors,
    model: str | os.PathLike[str] | None,
    device: str,
    output: Path | None,
) -> Iterator[Vectors | None]:
    """The queries' vectors, of the database's model, layer and pooling; None where they are the database's own."""
    if queries is None:
        yield None
        return
    dataset, path = database.dataset, Path(queries)
    if path.is_dir() or path.suffix in (".h5", ".hdf5"):
        with Vectors(path, dataset.representation, dataset.layer) as asked:
            if asked.attributes.get("checksum") != database.attributes.get("checksum"):
                raise UserError(
                    f"{asked.path}: was made with another model than {database.path}; their vectors cannot be compared"
                )
            _warn_of_other_settings(asked, database)
            yield asked
        return
    look_at(path)
    settings = _settings_of(database, model)
    # Beside the output there is room for large files, which elsewhere may be missing.
    with tempfile.TemporaryDirectory(prefix=".queries-", dir=output.parent if output else None) as folder:
        result = Path(folder) / "result"
        embed(path, output=result, device=device, **settings).close()
        with Vectors(result / EMBEDDINGS, dataset.representation, dataset.layer) as asked:
            yield asked


def _warn_of_other_settings(asked: Vectors, database: Vectors) -> None:
    for name in ("dtype", "long"):
        theirs, ours = asked.attributes.get(name), database.attributes.get(name)
        if theirs != ours:
            log.warning("%s was made with %s %s, %s with %s", asked.path, name, theirs, database.path, ours)


def _settings_of(database: Vectors, moved: str | os.PathLike[str] | None) -> dict[str, object]:
    """How to embed as the database was.

    Raises:
        UserError: its model is not there, or is another one by now.
    """
    attributes, dataset = database.attributes, database.dataset
    name, revision = str(attributes["model"]), str(attributes.get("revision", "")) or None
    try:
        found = hub.resolve(str(moved), None) if moved is not None else hub.resolve(name, revision)
    except UserError as error:
        if moved is not None:
            raise
        raise UserError(f"{error} (it made {database.path}; if it was moved, give its folder with --model)") from None
    if found.checksum != attributes["checksum"]:
        raise UserError(f"model {found.name}: is another one than that of {database.path}, or was changed since")
    treatment = Treatment.read(str(attributes.get("long", FULL)))
    return {
        **({"long": treatment.long, "max_length": treatment.longest} if treatment.longest else {}),
        **({"overlap": treatment.overlap} if treatment.long == WINDOW else {}),
        "model": found.name,
        "revision": None if moved is not None else revision,
        "dtype": str(attributes["dtype"]),
        "layers": [dataset.layer],
        "pooling": dataset.representation,
        "duplicate_ids": "number",
    }
