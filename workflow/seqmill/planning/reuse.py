"""The earlier results of the configuration: that they are there, and fit what it asks for, before any job starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqmill.errors import UserError
from seqmill.options import AUTO
from seqmill.planning import config as configuration
from seqmill.planning.paths import check_path


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


def _shown(value: str | list[str]) -> str:
    return value if isinstance(value, str) else f"[{', '.join(value)}]"
