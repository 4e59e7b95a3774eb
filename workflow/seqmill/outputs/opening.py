"""Opening a finished result: its file, found in a folder and held to its size, and its attributes in Python's types."""

from pathlib import Path
from typing import Any

import numpy as np

from seqmill.errors import UserError
from seqmill.outputs.embedding_file import Damaged, EmbeddingFile
from seqmill.outputs.names import EMBEDDINGS, OOM


def find(folder: Path) -> Path:
    """The embeddings.h5 of a folder.

    Raises:
        UserError: there is none.
    """
    if (folder / EMBEDDINGS).exists():
        return folder / EMBEDDINGS
    if (folder / OOM).exists():
        raise UserError(f"{folder}: holds no result, as memory ran out; {OOM} says what would help")
    inner = sorted(str(path.parent) for path in folder.glob(f"*/{EMBEDDINGS}"))
    advice = f"take one of {', '.join(inner[:10])}" if inner else "is the run finished?"
    raise UserError(f"{folder}: holds no {EMBEDDINGS}; {advice}")


def opened(path: Path) -> EmbeddingFile:
    """A finished result file, to read from.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        file = EmbeddingFile(path)
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such file or folder; give a folder of results, or an {EMBEDDINGS}"
        ) from None
    except (Damaged, OSError) as error:
        raise UserError(f"{path}: is not a result of seqmill, or a damaged one ({error})") from None
    # Another program may have packed it, and half a copy is no result.
    size = path.stat().st_size
    if any((extent.rows and not extent.offset) or extent.end > size for extent in file.extents.values()):
        file.__exit__()
        raise UserError(f"{path}: is damaged, or was rewritten by another program; copy the result again")
    return file


def plain(value: Any) -> Any:
    """An attribute of HDF5 in Python's own types."""
    if isinstance(value, bytes):
        return value.decode()
    return plain(value.tolist()) if isinstance(value, np.generic | np.ndarray) else value
