"""Exporting a result to a format of other tools: a folder with the format's files, whole or not there at all."""

import importlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from seqmill.errors import UserError
from seqmill.files import write_folder_atomically
from seqmill.outputs.formats import FORMATS
from seqmill.outputs.formats.source import Source


def export(embeddings: Path, index: Path | None, name: str, folder: Path, fasta: Sequence[Path] = ()) -> str:
    """Write a result in one of FORMATS; returns lines for people.

    Nothing is computed again, and memory does not grow with the result.

    Args:
        embeddings: the result, an embeddings.h5.
        index: its index.parquet; None for a result that has none.
        folder: is created; may be there if it is empty.
        fasta: the files with the result's sequences, in order; for biotrainer.

    Raises:
        UserError: there is something in the folder; the format can hold nothing of the result, or not that much; the
            result or its index is damaged; the disk is full.
    """
    check_folder(folder)
    form = FORMATS[name]
    module = importlib.import_module(f"seqmill.outputs.formats.{form.module}")
    with Source(embeddings, index, fasta) as source:
        # What was done to each sequence is a column of the index, too, which goes along.
        stored = [dataset for dataset in source.file.datasets if dataset.name not in source.schema.names]
        datasets = [dataset for dataset in stored if dataset.per in form.takes]
        left_out = [dataset.name for dataset in stored if dataset not in datasets]
        if not datasets:
            raise UserError(
                f"{embeddings}: holds {', '.join(left_out)} only, and {name} takes one vector per sequence; take "
                f"{_others(left_out, source)}, or embed with pooling mean, too"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        check_space(folder, source.size(datasets))
        with write_folder_atomically(folder) as temporary:
            module.write(source, datasets, temporary)
            files = ", ".join(sorted(path.name for path in temporary.iterdir()))
        said = f"{len(source):,} records in {folder}: {files}"
        if left_out:
            said += f"\nleft out: {', '.join(left_out)}, which {_others(left_out, source)} can hold"
        return said


def check_folder(folder: Path) -> None:
    """Refuse a folder with something in it, before any work: an export replaces nothing.

    Raises:
        UserError: there is something in it, or it is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; remove it, or give a new folder")


def check_space(folder: Path, needed: int) -> None:
    """Compare the bytes of values with what is free.

    Raises:
        UserError: too little is free.
    """
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise UserError(
            f"{folder}: the export needs {needed / 1e9:.1f} GB, but the disk has {free / 1e9:.1f} GB free; free some space, "
            "or give another folder"
        )


def _others(names: Sequence[str], source: Source) -> str:
    """The formats that can hold some datasets."""
    per = {dataset.per for dataset in source.file.datasets if dataset.name in names}
    *most, last = (name for name, form in FORMATS.items() if per <= set(form.takes))
    return f"{', '.join(most)} or {last}"
