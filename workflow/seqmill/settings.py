"""The configuration: checked, completed, and turned into the flags of the scripts. Imports no torch."""

import copy
import difflib
import json
import os
import shlex
import subprocess
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
        UserError: one does not exist.
    """
    paths = [config["fasta"]] if isinstance(config["fasta"], str) else config["fasta"]
    for path in paths:
        if not Path(path).is_file():
            raise UserError(f"configuration: fasta: there is no file {path}; paths start at {Path.cwd()}")
    return paths


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
    """The files of a model folder that decide what the model is; none for a hub id."""
    folder = Path(name)
    if not folder.is_dir():
        return []
    patterns = ("config.json", "*.safetensors", "*.bin")
    return [str(path) for pattern in patterns for path in sorted(folder.glob(pattern))]


def flag(name: str, value: Any) -> list[str]:
    """A flag with its value, or nothing where the value is not set."""
    return [] if value is None else [name, str(value)]


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
