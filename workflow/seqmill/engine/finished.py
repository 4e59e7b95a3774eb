"""A finished result that lies where a job is to write its own."""

from pathlib import Path

from seqmill.engine.task import Task
from seqmill.outputs import meta
from seqmill.outputs.embedding_file import Damaged, EmbeddingFile
from seqmill.outputs.names import EMBEDDINGS, META


def differences(folder: Path, task: Task) -> list[str]:
    """What a finished result in a folder differs in from what a task would write; nothing where there is none.

    Raises:
        UserError: another version of seqmill wrote it.
    """
    # Most folders are empty, and reading the record takes an import.
    if not (folder / META).exists():
        return []
    try:
        found = meta.read(folder)
        with EmbeddingFile(folder / EMBEDDINGS) as file:
            same = (
                file.ids().tolist() == task.sequences.ids and file.lengths.tolist() == task.sequences.lengths.tolist()
            )
    except (meta.Unusable, Damaged, FileNotFoundError):
        return []
    return meta.differences(found, task.fingerprint) + ([] if same else ["sequences"])
