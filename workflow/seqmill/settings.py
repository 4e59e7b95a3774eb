"""The configuration: checked, completed, and turned into the flags of the scripts. Imports no torch."""

import copy
import difflib
import json
import os
import shlex
import stat
import subprocess
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import best_match

from seqmill.errors import UserError


def check(config: dict[str, Any], schema_path: Path) -> dict[str, Any]:
    """A copy of the configuration with every default filled in.

    Raises:
        UserError: an unknown key or a value of the wrong kind; names the key, and the likely one meant.
    """
    schema = json.loads(schema_path.read_text())
    # YAML reads a section with every key commented out as null.
    config = {k: {} if v is None and "properties" in schema["properties"].get(k, {}) else v for k, v in config.items()}
    config = copy.deepcopy(config)
    if error := best_match(Draft202012Validator(schema).iter_errors(config)):
        raise UserError(_describe(error))
    _fill(config, schema)
    return config


def _fill(config: dict[str, Any], schema: dict[str, Any]) -> None:
    for key, part in schema["properties"].items():
        config.setdefault(key, copy.deepcopy(part.get("default", {} if "properties" in part else None)))
        if "properties" in part:
            _fill(config[key], part)


def _describe(error: ValidationError) -> str:
    # Part of an anyOf or of a list: the key that it belongs to says what may stand there.
    while "description" not in error.schema and error.parent is not None:
        error = error.parent
    where = ".".join(str(part) for part in error.absolute_path)
    prefix = f"{where}." if where else ""
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        key = next(key for key in error.instance if key not in known)
        close = difflib.get_close_matches(str(key), known, 1)
        hint = f"did you mean {prefix}{close[0]}?" if close else f"known here are {', '.join(known)}"
        return f"configuration: there is no key {prefix}{key}; {hint}"
    if error.validator == "required":
        return f"configuration: {prefix}{error.message.split(chr(39))[1]} is missing; {error.schema['description']}"
    expected = error.schema.get("description", error.message)
    return f"configuration: {where} cannot be {error.instance!r}; {expected}"


def fasta_files(config: dict[str, Any]) -> list[str]:
    """The input files, as a list.

    Raises:
        UserError: one does not exist, is no file, or has a path that Snakemake cannot handle.
    """
    paths = [config["fasta"]] if isinstance(config["fasta"], str) else config["fasta"]
    for path in paths:
        check_path("configuration: fasta", path)
        try:
            kind = Path(path).stat().st_mode
        except OSError as error:
            raise UserError(
                f"configuration: fasta: there is no file {path} to read ({error.strerror}); paths start at {Path.cwd()}"
            ) from None
        if not stat.S_ISREG(kind):
            raise UserError(f"configuration: fasta: {path} is a folder, a pipe or a device; give the path of a file")
    # Else a leading dash would be read as a flag.
    return [f"./{path}" if path.startswith("-") else path for path in paths]


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


def gpu_count(config: dict[str, Any]) -> int:
    """GPUs the run may use at once: as configured, or those nvidia-smi lists here (without importing torch)."""
    if config["performance"]["gpus"] != "auto":
        return config["performance"]["gpus"]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def planned_gpus(config: dict[str, Any], is_main_process: bool) -> int:
    """What `gpu_count` gave in the process that plans the run.

    Jobs read the workflow again, perhaps on a node with other GPUs: what the first process counted holds for all.
    """
    if is_main_process or "SEQMILL_GPUS" not in os.environ:
        os.environ["SEQMILL_GPUS"] = str(gpu_count(config))
    return int(os.environ["SEQMILL_GPUS"])


def shard_count(config: dict[str, Any], gpus: int) -> int:
    """How many shards: as configured, or one per GPU."""
    return max(gpus, 1) if config["shards"] == "auto" else config["shards"]


def threads_per_shard(cores: int | None, shards: int, gpus: int) -> int:
    """CPU threads of one embed job.

    An equal share of this machine among the jobs that run at once, one per GPU, or all where there is none; 8 where
    a cluster runs the jobs.
    """
    at_once = min(shards, gpus or shards)
    return max(cores // at_once, 1) if cores else 8


def model_files(name: str) -> list[str]:
    """The files of a model folder that decide what the model is; none for a hub id.

    Raises:
        UserError: a path that Snakemake cannot handle.
    """
    check_path("configuration: model.name", name)
    folder = Path(name)
    if not folder.is_dir():
        return []
    patterns = ("config.json", "*.safetensors", "*.bin")
    files = [str(path) for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]
    for file in files:
        check_path("configuration: model.name", file)
    return files


def flag(name: str, value: Any) -> list[str]:
    """A flag with its value, which may begin with a dash, or nothing where the value is not set."""
    return [] if value is None else [f"{name}={value}"]


def result_flags(config: dict[str, Any]) -> str:
    """The flags of embed.py that can change the result, quoted for the shell."""
    model = config["model"]
    layers = model["layers"] if isinstance(model["layers"], list) else [model["layers"]]
    layers = ["-1" if layer == "last" else str(layer) for layer in layers]
    pooling = model["pooling"] if isinstance(model["pooling"], list) else [model["pooling"]]
    return shlex.join(["--dtype", model["dtype"], "--layers", *layers, "--pooling", *pooling])


def performance_flags(config: dict[str, Any]) -> str:
    """The flags of embed.py that change speed and memory only, quoted for the shell."""
    return shlex.join(_performance_flags(config["performance"]))


def _performance_flags(performance: dict[str, Any]) -> Iterator[str]:
    for key in ("batch_size", "dataloader_workers", "streams", "attention", "on_oom"):
        yield from ("--" + key.replace("_", "-"), str(performance[key]))
    yield from ("--compile", {True: "on", False: "off"}.get(performance["compile"], "auto"))
    for key in ("pin_memory", "expandable_segments"):
        yield ("--" if performance[key] else "--no-") + key.replace("_", "-")
