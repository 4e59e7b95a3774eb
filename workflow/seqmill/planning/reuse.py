"""The earlier results of the configuration: that they are there, and fit what it asks for, before any job starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqmill.errors import UserError, first_line
from seqmill.inputs import census
from seqmill.options import AUTO
from seqmill.planning import config as configuration
from seqmill.planning.paths import check_path

# The column of an index that has the SHA-256 of each sequence.
HASHES = "sequence_sha256"


def earlier_results(config: dict[str, Any]) -> list[str]:
    """The paths of `reuse`, as the commands take them.

    Raises:
        UserError: a path that Snakemake cannot handle.
    """
    given = config["reuse"]
    paths = [given] if isinstance(given, str) else given or []
    for path in paths:
        check_path("configuration: reuse", path)
    # Otherwise a leading dash would be read as a flag.
    return [f"./{path}" if path.startswith("-") else path for path in paths]


def check(config: dict[str, Any], paths: Sequence[str], own: Sequence[Path]) -> None:
    """Refuse what would be refused later, when other sequences have been computed.

    Whether weights and layers are the same is known when the model is found, and checked there.

    Args:
        paths: see `earlier_results`.
        own: the results that this run writes.

    Raises:
        UserError: there is no such result, it is this run's own, or it was made with other settings.
    """
    if not paths:
        return
    # Only here: most runs need not wait for HDF5.
    from seqmill.outputs import earlier

    model = config["model"]
    wanted = {"pooling": sorted(configuration.chosen_pooling(config))}
    wanted |= {"dtype": model["dtype"]} if model["dtype"] != AUTO else {}
    files = earlier.located(paths)
    for file in files:
        earlier.refuse_own(file, own)
    for file in files:
        found = earlier.attributes(file)
        for name, value in wanted.items():
            if found[name] != value:
                raise UserError(
                    f"reuse: {file} was made with model.{name} {_shown(found[name])}, and this configuration asks for "
                    f"{_shown(value)}; change model.{name}, or take it out of the list"
                )
    earlier.common_attributes(files)


def keys(paths: Sequence[str]) -> np.ndarray:
    """What tells the sequences of earlier results apart, as `census.keys` gives it: 8 bytes each.

    Args:
        paths: see `earlier_results`.

    Raises:
        UserError: there is no such result, or its index cannot be read.
    """
    found = [np.zeros(0, census.KEY)]
    if paths:
        # Only here, see `check`.
        import pyarrow.parquet as pq

        from seqmill.outputs import earlier
        from seqmill.outputs.names import INDEX

        for path in (file.with_name(INDEX) for file in earlier.located(paths)):
            try:
                batches = pq.ParquetFile(path).iter_batches(columns=[HASHES])
                found += [census.keys(batch[HASHES].to_pylist()) for batch in batches]
            except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's own errors are among them
                raise UserError(
                    f"reuse: {path}: its hashes of sequences cannot be read ({first_line(error)}); copy the result again"
                ) from None
    return np.concatenate(found)


def _shown(value: str | list[str]) -> str:
    return value if isinstance(value, str) else f"[{', '.join(value)}]"
