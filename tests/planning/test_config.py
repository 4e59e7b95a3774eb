"""Mistakes in the configuration: each is named, with the key or the value that was likely meant."""

import re

import pytest
import yaml
from paths import REPOSITORY
from refusals import refusal

from seqmill.errors import UserError
from seqmill.planning import config as configuration

BAD_CONFIGURATIONS = {
    "misspelt key": ({"performance": {"batchsize": 5}}, "performance.batchsize; did you mean performance.batch_size?"),
    "misspelt section": ({"performence": {}}, "there is no key performence; did you mean performance?"),
    "misspelt model key": ({"model": {"layer": 3}}, "there is no key model.layer; did you mean model.layers?"),
    "key in the wrong place": ({"batch_size": 5}, "there is no key batch_size"),
    "word for a number": (
        {"performance": {"batch_size": "large"}},
        "performance.batch_size cannot be 'large'; give auto",
    ),
    "zero shards": ({"shards": 0}, "shards cannot be 0; give auto or a whole number from 1"),
    "fraction of a shard": ({"shards": 1.5}, "shards cannot be 1.5"),
    "true shards": ({"shards": True}, "shards cannot be True"),
    "negative workers": ({"performance": {"dataloader_workers": -1}}, "performance.dataloader_workers cannot be -1"),
    "other dtype": (
        {"model": {"dtype": "bf16"}},
        "model.dtype cannot be 'bf16'; give auto, float32, float16 or bfloat16",
    ),
    "other pooling": ({"model": {"pooling": ["mean", "first"]}}, "model.pooling"),
    "no pooling": ({"model": {"pooling": []}}, "model.pooling cannot be []"),
    "four streams": ({"performance": {"streams": 4}}, "performance.streams cannot be 4; give 2 or 3"),
    "yes for true": ({"performance": {"pin_memory": "yes please"}}, "performance.pin_memory cannot be 'yes please'"),
    "text for a section": ({"model": "facebook/esm2_t6_8M_UR50D"}, "model cannot be 'facebook/esm2_t6_8M_UR50D'"),
    "number for a file": ({"fasta": 3}, "fasta cannot be 3; give the path of a FASTA file"),
    "no files": ({"fasta": []}, "fasta cannot be []"),
}


@pytest.mark.parametrize(("edit", "says"), BAD_CONFIGURATIONS.values(), ids=BAD_CONFIGURATIONS)
def test_a_bad_configuration_is_refused(edit, says):
    sentence = refusal(configuration.check, {"fasta": "x.fasta"} | edit)
    assert sentence.startswith("configuration: ")
    assert says in sentence


def test_a_configuration_without_input_is_refused():
    assert refusal(configuration.check, {}).startswith("configuration: fasta is missing; ")


def test_a_section_with_every_key_commented_out_means_the_defaults():
    """YAML reads `performance:` with nothing behind it as null."""
    config = {"fasta": "x.fasta"}
    assert configuration.check(config | {"performance": None, "model": None}) == configuration.check(config)


def test_checking_fills_in_defaults_and_leaves_its_argument_alone():
    given = {"fasta": "x.fasta", "model": {"dtype": "float32"}}
    checked = configuration.check(given)
    assert given == {"fasta": "x.fasta", "model": {"dtype": "float32"}}
    assert checked["model"]["dtype"] == "float32"
    assert checked["model"]["pooling"] == "auto"
    assert checked["performance"]["batch_size"] == "auto"


def test_nested_settings_of_the_command_line_are_text():
    """As `--config 'performance={"batch_size":1024}'` gives them."""
    said = {"batch_size": "1024", "pin_memory": "True", "dataloader_workers": "auto", "compile": "false"}
    model = {"layers": ["0", "-1"], "revision": "null", "name": "1024"}
    config = configuration.check({"fasta": "a.fasta", "performance": said, "model": model})
    found = config["performance"]
    assert [found[key] for key in said] == [1024, True, "auto", False]
    assert config["model"]["layers"] == [0, -1]
    assert config["model"]["name"] == "1024"
    assert config["model"]["revision"] is None
    with pytest.raises(UserError, match=r"performance.batch_size cannot be 'many'"):
        configuration.check({"fasta": "a.fasta", "performance": {"batch_size": "many"}})


PAGES = ["README.md", "config/README.md"]
PAGES += [f"docs/{name}.md" for name in ("workstation", "offline-cluster", "out-of-memory")]


@pytest.mark.parametrize("page", PAGES)
def test_what_pages_say_to_write_is_a_configuration(page):
    blocks = re.findall(r"^```yaml\n(.*?)^```", (REPOSITORY / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        configuration.check({"fasta": "a.fasta"} | yaml.safe_load(block))
