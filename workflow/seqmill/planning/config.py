"""The configuration: checked, completed, and turned into the flags of the scripts."""

import copy
import difflib
import json
import shlex
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import best_match

from seqmill.errors import UserError
from seqmill.inputs.windows import FULL, Treatment
from seqmill.models import registry
from seqmill.models.family import Family
from seqmill.options import AUTO
from seqmill.planning.manual import schema
from seqmill.settings import embed_options


def check(config: dict[str, Any]) -> dict[str, Any]:
    """A copy of the configuration with every default filled in.

    Raises:
        UserError: an unknown key or a value of the wrong kind; names the key, and the likely one meant.
    """
    rules = schema()
    # Snakemake's own: where the results and logs of an imported workflow go.
    config = {key: value for key, value in config.items() if key != "pathvars"}
    # YAML reads a section with every key commented out as null.
    config = {k: {} if v is None and "properties" in rules["properties"].get(k, {}) else v for k, v in config.items()}
    config = {key: _as_meant(value, rules["properties"].get(key, {})) for key, value in copy.deepcopy(config).items()}
    if error := best_match(Draft202012Validator(rules).iter_errors(config)):
        raise UserError(_describe(error))
    _fill(config, rules)
    return config


def _as_meant(value: Any, rules: dict[str, Any]) -> Any:
    """A value in which numbers, true, false and null may be text: so nested ones come from Snakemake's `--config`."""
    if isinstance(value, dict) and "properties" in rules:
        return {key: _as_meant(part, rules["properties"].get(key, {})) for key, part in value.items()}
    validator, read = Draft202012Validator(rules), _read_text(value)
    is_text = validator.is_valid(value) and read is not None
    return read if not is_text and validator.is_valid(read) else value


def _read_text(value: Any) -> Any:
    if isinstance(value, list):
        return [_read_text(item) for item in value]
    try:
        return json.loads(value.lower()) if isinstance(value, str) else value
    except ValueError:
        return value


def _fill(config: dict[str, Any], rules: dict[str, Any]) -> None:
    for key, part in rules["properties"].items():
        config.setdefault(key, copy.deepcopy(part.get("default", {} if "properties" in part else None)))
        if "properties" in part:
            _fill(config[key], part)


def _describe(error: ValidationError) -> str:
    # Part of an anyOf or of a list: the description of its key says what is allowed.
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
        key = next(key for key in error.validator_value if key not in error.instance)
        return f"configuration: {prefix}{key} is missing; {error.schema['properties'][key]['description']}"
    expected = error.schema.get("description", error.message)
    return f"configuration: {where} cannot be {error.instance!r}; {expected}"


def flag(name: str, value: Any) -> list[str]:
    """A flag with its value, which may begin with a dash, or nothing where the value is not set."""
    return [] if value is None else [f"{name}={value}"]


def result_flags(config: dict[str, Any]) -> str:
    """The flags of embed.py that say what to take from the model, quoted for the shell.

    The words are part of what Snakemake compares: a change of them runs every shard again.
    """
    chosen = [
        word
        for option in embed_options(changes_result=True)
        if option.section == "model" and option.name not in ("name", "revision") and not _is_new(config, option.name)
        for word in option.words(_resolved(config, option.name))
    ]
    return shlex.join(chosen + long_flags(config))


def _is_new(config: dict[str, Any], name: str) -> bool:
    """Whether a setting is one that earlier versions did not have, and has its default."""
    return name == "storage" and config["model"][name] == AUTO


def long_flags(config: dict[str, Any]) -> list[str]:
    """The flags that say what becomes of long sequences; none where all are embedded whole."""
    if config["sequences"]["long"] == FULL:
        return []
    options = (
        option for option in embed_options(changes_result=True) if option.name in ("long", "max_length", "overlap")
    )
    return [word for option in options for word in option.words(config["sequences"][option.name])]


def treatment(config: dict[str, Any]) -> Treatment:
    """What becomes of long sequences.

    Raises:
        UserError: windows would not get on.
    """
    chosen = config["sequences"]
    lengths = (None if chosen[name] == AUTO else chosen[name] for name in ("max_length", "overlap"))
    return Treatment.of(chosen["long"], *lengths, family(config).trained)


def _resolved(config: dict[str, Any], name: str) -> Any:
    """A setting of the section model; what the family chooses is named, as it was before there were families."""
    value = config["model"][name]
    return list(family(config).pooling) if name == "pooling" and value == AUTO else value


def chosen_pooling(config: dict[str, Any]) -> list[str]:
    """The representations that the configuration asks for, with those that the family chooses."""
    value = config["model"]["pooling"]
    return list(family(config).chosen([value] if isinstance(value, str) else value, AUTO))


def performance_flags(config: dict[str, Any]) -> str:
    """The flags of embed.py that change speed and memory only, quoted for the shell."""
    options = embed_options(changes_result=False)
    return shlex.join(word for option in options for word in option.words(config["performance"][option.name]))


def family(config: dict[str, Any]) -> Family:
    """The family of the configured model: as its folder or its name says, or as configured, else the first one."""
    name, given = config["model"]["name"], config["model"]["family"]
    if given != AUTO:
        return registry.by_name(given)
    return registry.of_folder(Path(name)) or registry.published_by(name) or registry.FAMILIES[0]


def shard_flags(config: dict[str, Any], samples: list[str] | None = None) -> str | list[str]:
    """The value of --invalid on the command line of the command shard, followed by other flags if they are not the defaults.

    Snakemake compares these words: what was sharded before there were these flags must not be sharded again.

    Args:
        samples: the flags of a round of samples.
    """
    sequences, name = config["sequences"], family(config).name
    flags = [] if name == registry.FAMILIES[0].name else ["--family", name]
    if sequences["duplicate_ids"] != "error":
        flags += ["--duplicate-ids", sequences["duplicate_ids"]]
    flags += long_flags(config)
    flags += samples or []
    return [sequences["invalid"], *flags] if flags else sequences["invalid"]
