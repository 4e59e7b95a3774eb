"""Paths that Snakemake can take, and the files that a run reads."""

import stat
import unicodedata
from pathlib import Path
from typing import Any

from seqmill.errors import UserError
from seqmill.models import registry


def fasta_files(config: dict[str, Any], must_exist: bool = True) -> list[str]:
    """The input files of a configuration without samples, as a list; see `check_files`."""
    paths = [config["fasta"]] if isinstance(config["fasta"], str) else config["fasta"]
    return check_files("configuration: fasta", paths, must_exist)


def check_files(what: str, paths: list[str], must_exist: bool) -> list[str]:
    """Input files as Snakemake and the commands take them.

    Args:
        what: names the place that lists them, for messages.

    Raises:
        UserError: one is not a file, has a path that Snakemake cannot handle, or does not exist but must.
    """
    for path in paths:
        check_path(what, path)
        try:
            kind = Path(path).stat().st_mode
        except OSError as error:
            if not must_exist:
                continue
            raise UserError(
                f"{what}: there is no file {path} to read ({error.strerror}); paths start at {Path.cwd()}"
            ) from None
        if not stat.S_ISREG(kind):
            raise UserError(f"{what}: {path} is a folder, a pipe or a device; give the path of a file")
    # Otherwise a leading dash would be read as a flag.
    return [f"./{path}" if path.startswith("-") else path for path in paths]


def model_files(name: str) -> list[str]:
    """The files of a model folder that decide what the model is; none for a hub id.

    Raises:
        UserError: a path that Snakemake cannot handle.
    """
    check_path("configuration: model.name", name)
    folder = Path(name)
    if not folder.is_dir():
        return []
    patterns = ("config.json", "*.safetensors", "*.bin", "*.pth", "data/weights/*.pth")
    family = registry.of_folder(folder)
    patterns += family.tokenizer_files if family else ()
    files = [str(path) for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]
    for file in files:
        check_path("configuration: model.name", file)
    return files


def check_path(what: str, path: str) -> None:
    """Refuse a path that Snakemake cannot handle.

    Raises:
        UserError: it holds braces or control characters.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in path):
        raise UserError(f"{what}: {path!a} holds a line end or another control character; rename it")
    if "{" in path or "}" in path:
        raise UserError(
            f"{what}: {path} holds braces, which Snakemake takes for wildcards; rename it, or give a link to it"
        )
