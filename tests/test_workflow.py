"""The workflow as a whole: what an edit runs again, what a disaster leaves behind, and what comes out.

One run of a small input serves most tests; those that change something work on a copy of its folder.
"""

import json
import os
import random
import shutil
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from seqmill import checksums, merged, results, shards, weights
from seqmill.errors import UserError
from seqmill.fasta import read_all
from seqmill.store import EmbeddingFile

SABOTAGE = Path(__file__).parent / "sabotage"
CHECK, MERGE, SHARD, WEIGHTS = ((rule, None) for rule in ("check", "merge", "shard", "weights"))
EMBED = [("embed", "0"), ("embed", "1")]
FINISHED = ["embeddings.h5", "index.parquet", "summary.tsv"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, fresh_project, small_fasta):
    """A project after one whole run: 24 records, 2 shards, the demonstration model on the CPU. Not to be changed."""
    project = fresh_project(tmp_path_factory.mktemp("undisturbed") / "project")
    shutil.copy(small_fasta, project.folder / "proteins.fasta")
    (project.folder / "config/config.yaml").write_text("{}")
    project.configure(fasta="proteins.fasta", shards=2, model={"name": "resources/esm2_t6_3M_demo"})
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    assert project.jobs(done.stdout) == [CHECK, *EMBED, MERGE, SHARD, WEIGHTS]
    return project


@pytest.fixture
def finished(undisturbed, tmp_path):
    """A copy of the finished project, for a test to change."""
    return undisturbed.copy(tmp_path / "project")


@pytest.fixture
def sharded(finished):
    """The project before its first embed job."""
    shutil.rmtree(finished.folder / "results/embed")
    for name in FINISHED:
        (finished.folder / "results" / name).unlink()
    return finished


def read_embeddings(path):
    with h5py.File(path) as file:
        values = {name: file[name][:] for name in file if name != "ids"}
        return values | {"ids": file["ids"].asstr()[:].tolist()}


def relative_error(values, expected):
    """The worst vector's: |values - expected| / |expected|."""
    return float((np.linalg.norm(values - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())


def assert_same_embeddings(path, expected_path):
    values, expected = read_embeddings(path), read_embeddings(expected_path)
    assert values["ids"] == expected["ids"]
    assert values["lengths"].tolist() == expected["lengths"].tolist()
    assert values.keys() == expected.keys()
    assert relative_error(values["mean"], expected["mean"]) <= 1e-6
    with h5py.File(path) as file, h5py.File(expected_path) as expected_file:
        assert dict(file.attrs) == dict(expected_file.attrs)


def finished_files(project):
    """Results besides the input's pieces, diagnoses and what is kept to go on with."""
    return [name for name in project.results() if not name.startswith(("oom/", "shards/")) and ".partial/" not in name]


# What an edit of config/config.yaml runs again


def test_nothing_to_do_after_a_whole_run(undisturbed):
    assert undisturbed.plan() == []


@pytest.mark.parametrize(
    "edit",
    [
        {"batch_size": 777},
        {"dataloader_workers": 1},
        {"pin_memory": True},
        {"expandable_segments": True},
        {"streams": 2},
        {"attention": "sdpa"},
        {"compile": False},
        {"on_oom": "retry"},
        {"gpus": 7},
    ],
    ids=lambda edit: next(iter(edit)),
)
def test_an_edit_of_performance_runs_nothing_again(finished, edit):
    finished.configure(performance=edit)
    assert finished.plan() == []


def test_all_of_performance_at_once_runs_nothing_again(finished):
    finished.configure(
        performance={
            "batch_size": 512,
            "dataloader_workers": 0,
            "pin_memory": True,
            "expandable_segments": True,
            "streams": 2,
            "attention": "sdpa",
            "compile": True,
            "on_oom": "retry",
        }
    )
    assert finished.plan() == []


@pytest.mark.parametrize("edit", [{"layers": -1}, {"pooling": "mean"}], ids=["layers", "pooling"])
def test_saying_the_same_in_other_words_runs_nothing_again(finished, edit):
    finished.configure(model=edit)
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


def test_another_model_embeds_all_shards_again(finished, demo_model):
    shutil.copytree(demo_model, finished.folder / "other_model")
    finished.configure(model={"name": "other_model"})
    assert finished.plan() == [CHECK, *EMBED, MERGE, WEIGHTS]


def test_other_weights_in_the_same_folder_embed_all_shards_again(finished, demo_model):
    """The model's files are inputs, so that a retrained model in the same place is noticed."""
    resources = finished.folder / "resources"
    resources.unlink()
    shutil.copytree(demo_model, resources / demo_model.name)
    assert finished.plan() == []
    with (resources / demo_model.name / "model.safetensors").open("ab") as file:
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


# Disasters


def test_out_of_memory_runs_only_that_shard_again(sharded, undisturbed):
    """The failing command says what to do; after one edit the same command finishes, and nothing is done twice."""
    sharded.environment = {"PYTHONPATH": str(SABOTAGE), "SEQMILL_TEST_OOM": "0:1000"}
    failed = sharded.snakemake()
    assert failed.returncode != 0
    assert "Traceback" not in failed.stdout
    assert sharded.jobs(failed.stdout) == [CHECK, *EMBED]
    lines = failed.stdout.splitlines()
    title = lines.index("error: 1 of 2 shards ran out of memory:")
    heading, row = (line.split() for line in lines[title + 1 : title + 3])
    assert heading == ["shard", "batch_size", "longest", "done", "peak_GiB", "card_GiB", "recommended", "diagnosis"]
    assert row[:2] == ["0", "2048"]
    assert any(line.startswith("  -> ") for line in lines[title + 3 :])
    assert "The next run does exactly these shards again." in lines

    folder = sharded.folder / "results"
    (diagnosis,) = (folder / "oom").iterdir()
    assert str(diagnosis.relative_to(sharded.folder)) in row
    content = json.loads(diagnosis.read_text())
    assert (content["status"], content["shard"], content["batches_completed"]) == ("oom", "0", 0)
    assert content["requested_bytes"] == 2 * 2**30
    # On the CPU nothing is measured that a recommendation could rest on.
    assert content["recommended_batch_size"] is None
    assert finished_files(sharded) == ["embed/1/embeddings.h5", "embed/1/meta.json", "weights.json"]
    assert not (folder / "embed/0").exists()

    survivor = (folder / "embed/1/embeddings.h5").stat().st_mtime_ns
    sharded.configure(performance={"batch_size": 900})
    again = sharded.snakemake()
    assert again.returncode == 0, again.stdout
    assert sharded.jobs(again.stdout) == [CHECK, EMBED[0], MERGE]
    assert (folder / "embed/1/embeddings.h5").stat().st_mtime_ns == survivor
    assert json.loads((folder / "embed/0/meta.json").read_text())["settings"]["batch_size"] == 900
    assert_same_embeddings(folder / "embeddings.h5", undisturbed.folder / "results/embeddings.h5")
    assert diagnosis.exists()
    assert not list((folder / "embed").glob("*.partial"))
    assert sharded.plan() == []


def test_a_killed_job_runs_only_that_shard_again(sharded, undisturbed):
    """SIGKILL is what the kernel's and SLURM's memory limits send: no time to tidy up."""
    marker = sharded.folder / "killed"
    sharded.environment = {"PYTHONPATH": str(SABOTAGE), "SEQMILL_TEST_KILL": f"0:{marker}"}
    failed = sharded.snakemake()
    assert failed.returncode != 0
    assert marker.exists()
    assert sharded.jobs(failed.stdout) == EMBED
    assert finished_files(sharded) == ["embed/1/embeddings.h5", "embed/1/meta.json", "weights.json"]

    again = sharded.snakemake()
    assert again.returncode == 0, again.stdout
    assert sharded.jobs(again.stdout) == [CHECK, EMBED[0], MERGE]
    assert_same_embeddings(sharded.folder / "results/embeddings.h5", undisturbed.folder / "results/embeddings.h5")


# What comes out


def test_embeddings_are_in_input_order_with_duplicates(undisturbed):
    folder = undisturbed.folder
    given = list(read_all([folder / "proteins.fasta"]))
    found = read_embeddings(folder / "results/embeddings.h5")
    assert sorted(found) == ["ids", "lengths", "mean"]
    assert found["ids"] == [protein.id for protein in given]
    assert found["lengths"].tolist() == [len(protein.sequence) for protein in given]
    assert found["mean"].shape == (24, 192)
    assert found["mean"].dtype == np.float32
    assert np.isfinite(found["mean"]).all()
    # The twin has its sister's vector, and no two others are alike.
    assert len(np.unique(found["mean"], axis=0)) == 23
    assert found["mean"][23].tobytes() == found["mean"][2].tobytes()


def test_embeddings_say_how_they_were_made(undisturbed):
    with h5py.File(undisturbed.folder / "results/embeddings.h5") as file:
        attributes = dict(file.attrs)
    recorded = json.loads((undisturbed.folder / "results/weights.json").read_text())
    assert attributes["checksum"] == recorded["checksum"]
    assert attributes["model"] == "resources/esm2_t6_3M_demo"
    assert attributes["dtype"] == "float32"
    assert attributes["layers"].tolist() == [6]
    assert list(attributes["pooling"]) == ["mean"]
    assert attributes["attention"] == "PyTorch SDPA"
    assert "torch" in json.loads(attributes["versions"])
    for shard in "01":
        meta = json.loads((undisturbed.folder / f"results/embed/{shard}/meta.json").read_text())
        assert meta["fingerprint"] == attributes["fingerprint"]


def test_index_has_a_row_for_every_record(undisturbed):
    folder = undisturbed.folder / "results"
    index = pd.read_parquet(folder / "index.parquet")
    assert index.columns.tolist() == merged.INDEX_COLUMNS
    found = read_embeddings(folder / "embeddings.h5")
    assert index["id"].tolist() == found["ids"]
    assert index["length"].tolist() == found["lengths"].tolist()
    assert index["residues_replaced"].tolist() == [0] * 24
    assert index["duplicate_of"].notna().tolist() == [False] * 23 + [True]
    assert index["duplicate_of"][23] == index["id"][2]
    # Shard and row lead back to where the vector came from.
    parts = [read_embeddings(folder / f"embed/{shard}/embeddings.h5") for shard in range(2)]
    for record, vector in zip(index.itertuples(), found["mean"], strict=True):
        part = parts[record.shard]
        assert part["ids"][record.row] == record.sequence_sha256
        assert part["mean"][record.row].tobytes() == vector.tobytes()


def test_summary_has_a_row_for_every_shard(undisturbed):
    summary = pd.read_csv(undisturbed.folder / "results/summary.tsv", sep="\t")
    index = pd.read_parquet(undisturbed.folder / "results/index.parquet").drop_duplicates("sequence_sha256")
    assert summary["shard"].tolist() == [0, 1]
    assert summary["sequences"].tolist() == index["shard"].value_counts().sort_index().tolist()
    assert summary["residues"].tolist() == index.groupby("shard")["length"].sum().tolist()
    assert summary["longest"].tolist() == index.groupby("shard")["length"].max().tolist()


def embed_by_hand(demo_model, fasta, folder, count=2, **settings):
    """What the workflow does, in this process: quicker than Snakemake and as many starts of PyTorch."""
    from seqmill.job import Job, Settings

    shards.shard(read_all([fasta]), count, folder / "shards")
    found = weights.resolve(str(demo_model))
    folders = [folder / f"embed/{shard}" for shard in range(count)]
    for shard, part in enumerate(folders):
        chosen = Settings(device="cpu", workers=0, **settings)
        assert Job(folder / f"shards/{shard}.fasta", part, found, chosen, "", time.perf_counter()).run() == 0
    records = folder / "shards/records.parquet"
    results.check(folders, records)
    merged.merge(folders, records, folder / "embeddings.h5", folder / "index.parquet")
    return read_embeddings(folder / "embeddings.h5")


@pytest.fixture(scope="module")
def by_hand(demo_model, small_fasta, tmp_path_factory):
    return embed_by_hand(demo_model, small_fasta, tmp_path_factory.mktemp("by_hand"))


def test_the_scripts_without_snakemake_give_the_same(by_hand, undisturbed):
    expected = read_embeddings(undisturbed.folder / "results/embeddings.h5")
    assert by_hand["ids"] == expected["ids"]
    assert relative_error(by_hand["mean"], expected["mean"]) <= 1e-6


def test_the_order_of_the_input_does_not_matter(by_hand, demo_model, small_fasta, tmp_path):
    records = [">" + record for record in small_fasta.read_text().split(">")[1:]]
    random.Random(1).shuffle(records)
    (tmp_path / "shuffled.fasta").write_text("".join(records))
    shuffled = embed_by_hand(demo_model, tmp_path / "shuffled.fasta", tmp_path)
    assert shuffled["ids"] != by_hand["ids"]
    assert sorted(shuffled["ids"]) == sorted(by_hand["ids"])
    place = [shuffled["ids"].index(name) for name in by_hand["ids"]]
    assert shuffled["lengths"][place].tolist() == by_hand["lengths"].tolist()
    # Not to the last bit: other neighbours in a batch are other shapes for the CPU's matrix products.
    assert relative_error(shuffled["mean"][place], by_hand["mean"]) <= 1e-6


@pytest.mark.parametrize("batch_size", [1, 600])
def test_the_batch_size_does_not_change_the_result(by_hand, demo_model, small_fasta, tmp_path, batch_size):
    found = embed_by_hand(demo_model, small_fasta, tmp_path, batch_size=batch_size)
    assert found["ids"] == by_hand["ids"]
    assert relative_error(found["mean"], by_hand["mean"]) <= 1e-6


def test_more_shards_than_sequences(by_hand, demo_model, small_fasta, tmp_path):
    records = [">" + record for record in small_fasta.read_text().split(">")[1:4]]
    (tmp_path / "three.fasta").write_text("".join(records))
    found = embed_by_hand(demo_model, tmp_path / "three.fasta", tmp_path, count=5)
    assert found["ids"] == by_hand["ids"][:3]
    assert relative_error(found["mean"], by_hand["mean"][:3]) <= 1e-6
    assert (tmp_path / "embed/4/meta.json").exists()


@pytest.mark.parametrize("layers", [(-1,), (0, 3, -1)], ids=["one layer", "three layers"])
def test_all_poolings_merge_rightly(by_hand, demo_model, small_fasta, tmp_path, layers):
    found = embed_by_hand(demo_model, small_fasta, tmp_path, pooling=("mean", "bos", "residues"), layers=layers)
    suffixes = [""] if len(layers) == 1 else ["_layer0", "_layer3", "_layer6"]
    names = [pooling + suffix for pooling in ("mean", "bos", "residues") for suffix in suffixes]
    assert sorted(found) == sorted(["ids", "lengths", "offsets", *names])
    lengths, offsets = found["lengths"], found["offsets"]
    assert offsets.tolist() == [0, *np.cumsum(lengths).tolist()]
    for suffix in suffixes:
        residues = found["residues" + suffix]
        assert residues.shape == (lengths.sum(), 192)
        assert found["bos" + suffix].shape == (24, 192)
        means = np.array([residues[offsets[i] : offsets[i + 1]].mean(axis=0, dtype=np.float64) for i in range(24)])
        assert relative_error(means, found["mean" + suffix]) <= 1e-6
        # The twin's residues are its sister's, far apart as they stand.
        assert residues[offsets[23] :].tobytes() == residues[offsets[2] : offsets[3]].tobytes()
    assert relative_error(found["mean" + suffixes[-1]], by_hand["mean"]) <= 1e-6


def test_layers_and_poolings_are_what_they_say(demo_model, small_fasta, tmp_path):
    """The begin token's embedding is one vector for all sequences; after the layers it is each sequence's own."""
    found = embed_by_hand(demo_model, small_fasta, tmp_path, pooling=("bos",), layers=(0, 6))
    assert len(np.unique(found["bos_layer0"], axis=0)) == 1
    assert len(np.unique(found["bos_layer6"], axis=0)) == 23


# Shards that do not belong


def edit_meta(folder, **changes):
    """As another run would have written it."""
    path = folder / "meta.json"
    meta = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(checksums.sealed({name: value for name, value in meta.items() if name != "seal"})))


def write_as_an_earlier_version(folder):
    path = folder / "meta.json"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in meta.items() if name not in ("seal", "checksums")}))


def edit_embeddings(folder, edit):
    with h5py.File(folder / "embeddings.h5", "a") as file:
        edit(file)


def truncate(path, size):
    with path.open("rb+") as file:
        file.truncate(size)


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def middle_of_mean(folder):
    with EmbeddingFile(folder / "embeddings.h5") as file:
        extent = file.extents["mean"]
    return (extent.offset + extent.end) // 2


def write_nan(folder):
    with EmbeddingFile(folder / "embeddings.h5", writable=True) as file:
        file.write(np.array([3]), {"mean": np.full((1, 192), np.nan)})


FOREIGN = {
    "weights": (lambda folder: edit_meta(folder, checksum="0" * 64), "other model weights than"),
    "dtype": (lambda folder: edit_meta(folder, dtype="bfloat16"), "other dtype than"),
    "layers": (lambda folder: edit_meta(folder, layers=[3]), "other layers than"),
    "pooling": (lambda folder: edit_meta(folder, pooling=["bos"]), "other pooling than"),
    "fingerprint": (lambda folder: edit_meta(folder, fingerprint="0" * 64), "other settings than"),
    "earlier version": (write_as_an_earlier_version, "was written by another version of seqmill"),
    "another shard": (
        lambda folder: [
            shutil.copy(folder.parent / "0" / name, folder / name) for name in ("embeddings.h5", "meta.json")
        ],
        "other sequences",
    ),
}

DAMAGED = {
    "no meta.json": (lambda folder: (folder / "meta.json").unlink(), "there is no meta.json"),
    "truncated meta.json": (lambda folder: truncate(folder / "meta.json", 100), "meta.json is damaged"),
    "no JSON object": (lambda folder: (folder / "meta.json").write_text("[]"), "meta.json is damaged"),
    "a changed byte of meta.json": (
        lambda folder: flip(folder / "meta.json", (folder / "meta.json").read_text().index("SDPA")),
        "meta.json is damaged",
    ),
    "no embeddings.h5": (lambda folder: (folder / "embeddings.h5").unlink(), "there is no embeddings.h5"),
    "truncated embeddings.h5": (
        lambda folder: truncate(folder / "embeddings.h5", 5000),
        "embeddings.h5 is damaged (Unable to synchronously open file (truncated file",
    ),
    "a longer embeddings.h5": (
        lambda folder: truncate(folder / "embeddings.h5", (folder / "embeddings.h5").stat().st_size + 1),
        "its checksum of around",
    ),
    "embeddings.h5 of another shard": (
        lambda folder: shutil.copy(folder.parent / "0/embeddings.h5", folder / "embeddings.h5"),
        "its checksum of around",
    ),
    "a flipped bit in a vector": (
        lambda folder: flip(folder / "embeddings.h5", middle_of_mean(folder)),
        "its checksum of mean",
    ),
    "a flipped bit in an id": (
        lambda folder: flip(
            folder / "embeddings.h5",
            (folder / "embeddings.h5").read_bytes().index((EmbeddingFile(folder / "embeddings.h5").ids()[0]).encode()),
        ),
        "its checksum of around",
    ),
    "not a number": (write_nan, "mean of rows 0 to"),
    "another attribute": (
        lambda folder: edit_embeddings(folder, lambda file: file.attrs.update(fingerprint="0" * 64)),
        "its checksum of around",
    ),
    "no vectors in embeddings.h5": (
        lambda folder: edit_embeddings(folder, lambda file: file.pop("mean")),
        "embeddings.h5 is damaged",
    ),
    "no folder": (shutil.rmtree, "there is no meta.json"),
}


@pytest.fixture
def folders(undisturbed, tmp_path):
    """Copies of the shards' folders."""
    shutil.copytree(undisturbed.folder / "results/embed", tmp_path / "embed")
    return [tmp_path / "embed/0", tmp_path / "embed/1"]


def assert_refused_by_check_and_merge(folders, records, says, tamper):
    folder = folders[0].parent.parent
    for refuse in (
        lambda: results.check(folders, records),
        lambda: merged.merge(folders, records, folder / "embeddings.h5", folder / "index.parquet"),
    ):
        tamper(folders[1])
        with pytest.raises(UserError) as refused:
            refuse()
        assert says in str(refused.value)
        assert "embed/1" in str(refused.value)
        assert "\n" not in str(refused.value)
        assert [path.name for path in folder.iterdir()] == ["embed"]


@pytest.mark.parametrize(("tamper", "says"), FOREIGN.values(), ids=FOREIGN)
def test_a_shard_that_does_not_belong_is_refused_and_left_alone(undisturbed, folders, tamper, says):
    records = undisturbed.folder / "results/shards/records.parquet"
    results.check(folders, records)
    assert_refused_by_check_and_merge(folders, records, says, tamper)
    assert (folders[1] / "embeddings.h5").exists()


@pytest.mark.parametrize(("tamper", "says"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_shard_is_removed_to_be_done_again(undisturbed, folders, tamper, says):
    whole = folders[1].with_name("whole")
    shutil.copytree(folders[1], whole)

    def restore_and_tamper(folder):
        shutil.copytree(whole, folder, dirs_exist_ok=True)
        tamper(folder)

    records = undisturbed.folder / "results/shards/records.parquet"
    assert_refused_by_check_and_merge(folders, records, says, restore_and_tamper)
    assert not folders[1].exists()
    assert (folders[0] / "embeddings.h5").exists()


@pytest.mark.parametrize("dtype", ["f2", "f4"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen(dtype, bad):
    values = np.array([[0, -65504, 65504, 6e-8]], dtype)
    assert results._all_finite(values)
    assert not results._all_finite(np.vstack([values, np.full(4, bad, dtype)]))
    assert results._all_finite(values[:0])


def test_all_damaged_shards_are_named_at_once(undisturbed, folders):
    for folder in folders:
        flip(folder / "embeddings.h5", -1)
    with pytest.raises(UserError, match=r"^2 of 2 shards are missing or damaged.*embed/0: .*embed/1: "):
        results.check(folders, undisturbed.folder / "results/shards/records.parquet")


def test_a_damaged_shard_is_the_only_one_that_runs_again(finished, undisturbed):
    """Found by merge too, when check had passed it."""
    (finished.folder / "results/embeddings.h5").unlink()
    flip(finished.folder / "results/embed/0/embeddings.h5", -1)
    failed = finished.snakemake()
    assert failed.returncode != 0
    assert "error: 1 of 2 shards are missing or damaged" in failed.stdout
    assert "Traceback" not in failed.stdout
    again = finished.snakemake()
    assert again.returncode == 0, again.stdout
    assert finished.jobs(again.stdout) == [CHECK, EMBED[0], MERGE]
    assert_same_embeddings(finished.folder / "results/embeddings.h5", undisturbed.folder / "results/embeddings.h5")


@pytest.mark.parametrize("content", ["", "{}", '{"status": "oom"'])
def test_a_damaged_diagnosis_is_named(folders, tmp_path, content):
    (folders[1] / "oom.json").write_text(content)
    with pytest.raises(UserError, match=r"embed/1/oom.json: is damaged or of another version; remove"):
        results.collect_ooms(folders, tmp_path / "oom")
    assert folders[0].exists()


def test_a_folder_too_few_is_refused(undisturbed, tmp_path):
    """Or the rows of the shard left out would hold whatever memory held."""
    records = undisturbed.folder / "results/shards/records.parquet"
    with pytest.raises(UserError, match="deals sequences to shard 1, but 1 folders were given"):
        results.check([undisturbed.folder / "results/embed/0"], records)


def test_the_scripts_refuse_with_one_sentence(finished):
    """What stands on the screen, and that nothing is left that looks like a result."""
    edit_meta(finished.folder / "results/embed/1", checksum="0" * 64)
    scripts = finished.folder / "workflow/scripts"
    inputs = ["--folders", "results/embed/0", "results/embed/1", "--records", "results/shards/records.parquet"]
    check = finished.run(sys.executable, scripts / "check.py", *inputs, "--oom", "o", "--output", "s.tsv")
    merge = finished.run(sys.executable, scripts / "merge.py", *inputs, "--embeddings", "e.h5", "--index", "i.parquet")
    for done in (check, merge):
        assert done.returncode == 1
        assert done.stdout == (
            "error: results/embed/1 was made with other model weights than results/embed/0; "
            "run again with --forcerun embed\n"
        )
    assert not {"o", "s.tsv", "e.h5", "i.parquet"} & {path.name for path in finished.folder.iterdir()}


def test_a_shard_of_another_input_is_refused(undisturbed, demo_model, tmp_path):
    """Folders left by an earlier input, as after a copied results directory."""
    (tmp_path / "other.fasta").write_text(">a\nMKTAYIAKQR\n>b\nMKVLAAGG\n")
    embed_by_hand(demo_model, tmp_path / "other.fasta", tmp_path)
    folders = [undisturbed.folder / "results/embed/0", tmp_path / "embed/1"]
    with pytest.raises(UserError, match="other sequences than this shard of the input"):
        results.check(folders, undisturbed.folder / "results/shards/records.parquet")


# Snakemake itself


def test_the_slurm_profile_works_as_written(project):
    """`snakemake --profile slurm -n`, literally, in a fresh checkout as it is shipped."""
    done = project.run("snakemake", "--profile", "slurm", "-n")
    assert done.returncode == 0, done.stdout
    assert {rule for rule, _ in project.jobs(done.stdout)} == {"weights", "shard", "embed", "check", "merge"}
    # By that profile, and not by none: else Snakemake says which other place it took it from.
    assert "Using profile slurm" in done.stdout


def test_the_local_profile_works_as_shipped(project):
    assert {rule for rule, _ in project.plan()} == {"weights", "shard", "embed", "check", "merge"}


def test_lint_is_clean(project):
    done = project.run("snakemake", "--lint")
    assert done.returncode == 0, done.stdout
    assert "Lints for" not in done.stdout
