"""What an edit of config/config.yaml, the input, the model or the code runs again."""

import json
import os
import shutil
import time

import pytest
from paths import SCHEMAS

CHECK, MERGE, SHARD, WEIGHTS = ((rule, None) for rule in ("check", "merge", "shard", "weights"))
EMBED = [("embed", "0"), ("embed", "1")]


def test_nothing_to_do_after_a_whole_run(undisturbed):
    assert undisturbed.plan() == []


def test_an_edit_of_all_of_performance_runs_nothing_again(finished):
    settings = {
        "gpus": 7,
        "batch_size": 512,
        "dataloader_workers": 0,
        "pin_memory": True,
        "expandable_segments": True,
        "streams": 2,
        "attention": "sdpa",
        "compile": True,
        "on_oom": "retry",
    }
    schema = json.loads((SCHEMAS / "config.schema.json").read_text())["properties"]["performance"]["properties"]
    assert settings.keys() == schema.keys()
    assert not [key for key, value in settings.items() if value == schema[key]["default"]]
    finished.configure(performance=settings)
    assert finished.plan() == []


def test_saying_the_same_in_other_words_runs_nothing_again(finished):
    finished.configure(model={"layers": -1, "pooling": "mean"})
    assert finished.plan() == []


@pytest.mark.parametrize(
    "edit",
    [
        {"dtype": "bfloat16"},
        {"layers": 3},
        {"layers": [2, -1]},
        {"pooling": "bos"},
        {"pooling": ["mean", "residues"]},
    ],
    ids=str,
)
def test_an_edit_of_the_model_embeds_all_shards_again(finished, edit):
    finished.configure(model=edit)
    assert finished.plan() == [CHECK, *EMBED, MERGE]


def test_another_model_embeds_all_shards_again(finished, tiny_model):
    shutil.copytree(tiny_model, finished.folder / "other_model")
    finished.configure(model={"name": "other_model"})
    assert finished.plan() == [CHECK, *EMBED, MERGE, WEIGHTS]


def test_other_weights_in_the_same_folder_embed_all_shards_again(finished):
    """The model's files are inputs, so that a retrained model in the same place is noticed."""
    with (finished.folder / "model/model.safetensors").open("ab") as file:
        file.write(b"retrained")
    assert finished.plan() == [CHECK, *EMBED, MERGE, WEIGHTS]


def test_another_treatment_of_invalid_letters_runs_everything_again(finished):
    finished.configure(sequences={"invalid": "replace"})
    assert finished.plan() == [CHECK, *EMBED, MERGE, SHARD]


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_shards_runs_everything_again(finished, count):
    finished.configure(shards=count)
    embed = [("embed", str(shard)) for shard in range(count)]
    assert finished.plan() == [CHECK, *embed, MERGE, SHARD]


def test_another_input_runs_everything_again(finished):
    text = (finished.folder / "proteins.fasta").read_text()
    (finished.folder / "more.fasta").write_text(text + ">one_more\nMKTAYIAKQR\n")
    finished.configure(fasta="more.fasta")
    assert finished.plan() == [CHECK, *EMBED, MERGE, SHARD]


def test_touched_and_edited_code_runs_nothing_again(finished):
    """A new version of seqmill is no reason to throw away a week of GPU time; --forcerun is there for that."""
    workflow = finished.folder / "workflow"
    source = workflow.resolve()
    workflow.unlink()
    shutil.copytree(source, workflow, ignore=shutil.ignore_patterns("__pycache__"))
    code = [path for path in workflow.rglob("*") if path.suffix in (".py", ".json")]
    assert {path.parent.name for path in code} >= {"scripts", "seqmill", "schemas"}
    now = time.time()
    for path in code:
        os.utime(path, (now, now))
    with (workflow / "scripts/embed.py").open("a") as file:
        file.write("# edited\n")
    rule = workflow / "rules/embed.smk"
    command = rule.read_text()
    assert "        python " in command
    rule.write_text(command.replace("        python ", "        python  "))
    assert finished.plan() == []
