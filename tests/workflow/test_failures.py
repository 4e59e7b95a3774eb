"""What a failure leaves behind, and that the same command goes on from there."""

import json
import re

import damage
import pytest
import yaml
from embeddings import assert_same_embeddings, read_meta
from paths import INJECTION, REPOSITORY

CHECK, MERGE = ("check", None), ("merge", None)
EMBED = [("embed", "0"), ("embed", "1")]


def finished_files(project):
    """Results besides the input's pieces, diagnoses and what is kept to go on with."""
    return [name for name in project.results() if not name.startswith(("oom/", "shards/")) and ".partial/" not in name]


@pytest.mark.slow
def test_a_killed_job_and_one_out_of_memory_run_only_that_shard_again(sharded, undisturbed):
    """One shard fails twice: the kernel kills it, as SLURM does for its limits, then it runs out of GPU memory.

    The failing command says what docs/out-of-memory.md shows; after the page's edit the same command finishes, and
    nothing is done twice.
    """
    page = (REPOSITORY / "docs/out-of-memory.md").read_text()
    folder = sharded.folder / "results"
    marker = sharded.folder / "killed"
    sharded.environment = {"PYTHONPATH": str(INJECTION), "SEQMILL_TEST_KILL": f"0:{marker}"}
    # One job after the other, this one first: the second one starts although the first has failed.
    killed = sharded.snakemake("--cores", "1", "--prioritize", "results/embed/0")
    assert killed.returncode != 0
    assert marker.exists()
    assert sharded.jobs(killed.stdout) == EMBED
    # Behind all of Snakemake's report of the failure, but for its last words.
    assert any(line.startswith("seqmill did not finish. Kept: 1 ") for line in killed.stdout.splitlines()[-8:])
    assert finished_files(sharded) == ["embed/1/embeddings.h5", "embed/1/meta.json", "weights.json"]
    survivor = (folder / "embed/1/embeddings.h5").stat().st_mtime_ns
    assert sharded.plan() == [CHECK, EMBED[0], MERGE]

    sharded.environment = {"PYTHONPATH": str(INJECTION), "SEQMILL_TEST_OOM": "0:1000"}
    failed = sharded.snakemake()
    assert failed.returncode != 0
    assert "Traceback" not in failed.stdout
    assert sharded.jobs(failed.stdout) == [CHECK, EMBED[0]]
    lines = failed.stdout.splitlines()
    title = lines.index("error: 1 of 2 shards ran out of memory:")
    heading, row = (line.split() for line in lines[title + 1 : title + 3])
    assert heading == ["shard", "batch_size", "longest", "done", "peak_GiB", "card_GiB", "recommended", "diagnosis"]
    assert heading in [line.split() for line in page.splitlines()]
    assert row[:2] == ["0", "2048"]
    assert any(line.startswith("  -> ") for line in lines[title + 3 :])
    assert "The next run repeats exactly these shards." in lines
    assert "The next run repeats exactly these shards." in page.splitlines()

    (diagnosis,) = (folder / "oom").iterdir()
    assert str(diagnosis.relative_to(sharded.folder)) in row
    content = json.loads(diagnosis.read_text())
    assert (content["status"], content["shard"], content["batches_completed"]) == ("oom", "0", 0)
    assert content["requested_bytes"] == 2 * 2**30
    # On the CPU nothing is measured that a recommendation could rest on.
    assert content["recommended_batch_size"] is None
    assert finished_files(sharded) == ["embed/1/embeddings.h5", "embed/1/meta.json", "weights.json"]
    assert not (folder / "embed/0").exists()

    edit, _ = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    sharded.configure(**yaml.safe_load(edit.replace("23040", "900")))
    again = sharded.snakemake()
    assert again.returncode == 0, again.stdout
    assert sharded.jobs(again.stdout) == [CHECK, EMBED[0], MERGE]
    assert (folder / "embed/1/embeddings.h5").stat().st_mtime_ns == survivor
    assert read_meta(folder / "embed/0")["settings"]["batch_size"] == 900
    assert_same_embeddings(folder / "embeddings.h5", undisturbed.folder / "results/embeddings.h5")
    assert diagnosis.exists()
    assert not list((folder / "embed").glob("*.partial"))
    assert sharded.plan() == []


def test_a_damaged_shard_is_the_only_one_that_runs_again(finished):
    """Found by merge too, when check had passed it."""
    folder = finished.folder / "results"
    (folder / "embeddings.h5").unlink()
    damage.flip(folder / "embed/0/embeddings.h5", -1)
    failed = finished.snakemake()
    assert failed.returncode != 0
    assert "error: 1 of 2 shards are missing or damaged" in failed.stdout
    assert "Traceback" not in failed.stdout
    assert not (folder / "embed/0").exists()
    # As after the kill above, from where these jobs end in the same embeddings.
    assert finished.plan() == [CHECK, EMBED[0], MERGE]
