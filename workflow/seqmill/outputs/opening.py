"""Finding and opening a finished result, with a sentence for each way in which there is none."""

from pathlib import Path

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
    advice = f"open one of {', '.join(inner[:10])}" if inner else "is the run finished?"
    raise UserError(f"{folder}: holds no {EMBEDDINGS}; {advice}")


def opened(path: Path) -> EmbeddingFile:
    """An embeddings.h5 that is whole, to read from.

    Raises:
        UserError: there is no such file, or it is damaged.
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
