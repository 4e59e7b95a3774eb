"""Settings: one table, and every place that names them says the same."""

import argparse
import dataclasses
import json
import re

import pytest
import yaml
from paths import REPOSITORY, SCHEMAS

from seqmill import settings
from seqmill.commands import embed
from seqmill.kernels import attention
from seqmill.kinds import Choice, Number, Several
from seqmill.models.registry import FAMILIES
from seqmill.option import REQUIRED
from seqmill.options import ATTENTION, AUTO, OPTIONS
from seqmill.outputs.representations import REPRESENTATIONS
from seqmill.planning import config as configuration
from seqmill.planning import manual
from seqmill.settings import Settings

# What config/config.yaml sets for the demonstration.
DEMONSTRATION = {"fasta", "model.name", "shards"}


def embed_parser() -> argparse.ArgumentParser:
    """The parser of the command embed."""
    parser = argparse.ArgumentParser()
    embed.add_arguments(parser)
    return parser


def flatten(config: dict) -> dict:
    """Sections joined with their keys by a dot."""
    found = {}
    for key, value in config.items():
        inner = {f"{key}.{name}": part for name, part in value.items()} if isinstance(value, dict) else {key: value}
        found |= inner
    return found


def test_command_line_settings_schema_configuration_and_manual_agree():
    """Every setting's name, choices and default, in all five places."""
    schema = json.loads((SCHEMAS / "config.schema.json").read_text())
    nested = {name: part.get("properties", part) for name, part in schema["properties"].items()}
    schema_keys = flatten({name: part if "description" not in part else [part] for name, part in nested.items()})
    in_schema = {key: part[0] if isinstance(part, list) else part for key, part in schema_keys.items()}
    written = flatten(yaml.safe_load((REPOSITORY / "config/config.yaml").read_text()))
    rows = re.findall(
        r"^\| `(\S+)` \| (.+?) \| (.+?) \| .+ \|$", (REPOSITORY / "config/README.md").read_text(), re.MULTILINE
    )
    in_manual = {key: (default, values) for key, default, values in rows}
    actions = {flag: action for action in embed_parser()._actions for flag in action.option_strings}
    settings = Settings()

    keys = [option.key for option in OPTIONS]
    assert keys == list(in_schema) == list(written) == list(in_manual)
    for option in OPTIONS:
        default, values = in_manual[option.key]
        assert values == option.kind.values()
        if option.default is REQUIRED:
            assert (default, option.name in schema["required"]) == ("(none)", True)
        else:
            assert in_schema[option.key]["default"] == option.default
            assert yaml.safe_load(default.strip("`")) == option.default
            assert option.key in DEMONSTRATION or written[option.key] == option.default
        if option.flag:
            action, parsed = actions[option.flag], option.kind.parsed(option.default)
            assert action.default == getattr(settings, option.destination) == parsed
            assert action.dest == option.destination
            if choices := getattr(option.kind, "options", None):
                assert list(action.choices) == [Choice(choices).parsed(choice) for choice in choices]
                assert json.dumps(list(choices))[1:-1] in json.dumps(in_schema[option.key])
                assert all(str(choice).lower() in values for choice in choices)


def test_the_schema_and_the_manual_are_written_from_the_table():
    """`python -m seqmill.planning.manual` in the folder workflow writes them."""
    assert manual.SCHEMA.read_text() == manual.written_schema()
    assert manual.MANUAL.read_text() == manual.written_manual(manual.MANUAL.read_text())


def test_choices_are_what_there_is():
    by_name = {option.name: option.kind for option in OPTIONS}
    assert by_name["pooling"].options == (AUTO, *REPRESENTATIONS)
    assert by_name["family"].options == (AUTO, *(family.name for family in FAMILIES))
    assert set(ATTENTION) == {"auto", *attention.NAMES}


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.flag], ids=lambda option: option.name)
def test_the_command_line_says_what_the_configuration_says(option):
    """Every value that config.yaml can have comes out of embed.py's parser as `Settings` has it."""
    examples = {
        Choice: lambda kind: kind.options,
        Several: lambda kind: [[name] for name in kind.options] if kind.options else ["last", 3, [0, -1]],
        Number: lambda kind: ["auto", kind.least, 77],
    }.get(type(option.kind), lambda _: [True, False] if isinstance(option.default, bool) else ["-x"])(option.kind)
    for value in examples:
        parser = argparse.ArgumentParser()
        settings.add_argument(parser, option.name)
        words = option.words(value)
        joined = [f"{words[0]}={words[1]}"] if words[-1] == "-x" else words
        assert Settings.of(parser.parse_args(joined)) == dataclasses.replace(
            Settings(), **{option.destination: option.kind.parsed(value)}
        )


def test_flags_of_the_rules_are_those_of_version_0_1():
    """Snakemake compares the words of what can change a result: other words would run finished shards again."""
    config = configuration.check({"fasta": "x", "model": {"layers": [2, "last"][:1], "pooling": "mean"}})
    assert configuration.result_flags(config) == "--dtype auto --layers 2 --pooling mean"
    config = configuration.check({"fasta": "x", "model": {"pooling": ["mean", "residues"]}})
    assert configuration.result_flags(config) == "--dtype auto --layers -1 --pooling mean residues"
    assert configuration.performance_flags(config) == (
        "--batch-size auto --dataloader-workers auto --no-pin-memory --no-expandable-segments --streams 3 "
        "--attention auto --compile auto --on-oom fail"
    )
