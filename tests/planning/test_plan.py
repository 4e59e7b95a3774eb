"""Plans: what a run will take, said before it runs."""

import gzip
import json
from itertools import islice
from pathlib import Path

import pytest
from Bio.SeqIO.FastaIO import SimpleFastaParser
from paths import DEMO_MODEL, PROTEOME, SCRIPTS
from processes import run
from refusals import assert_refused, refusal
from small_run import SmallRun

from seqmill.inputs import earlier_rounds, rounds, shards
from seqmill.inputs.sample import Sample
from seqmill.models.esm2.family import COST
from seqmill.planning import calibration, disk, plan
from seqmill.planning import config as configuration
from seqmill.planning import resources as demand
from seqmill.planning.plan_text import content, describe


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No plan here has to wait for what this machine can do."""
    monkeypatch.setattr(calibration, "measured", lambda: (1e11, 1e10))


@pytest.fixture(scope="module")
def proteins(tmp_path_factory):
    """150 proteins, a fifth of them twice."""
    with gzip.open(PROTEOME, "rt") as handle:
        records = [r for r in islice(SimpleFastaParser(handle), 400) if len(r[1]) < 250][:125]
    records += [(f"copy_{title}", sequence) for title, sequence in records[::5]]
    path = tmp_path_factory.mktemp("proteins") / "proteins.fasta"
    path.write_text("".join(f">{title}\n{sequence}\n" for title, sequence in records))
    return path


def planned(fasta, results=Path("nowhere"), gpu=None, **config):
    config = {"model": {"name": str(DEMO_MODEL)}, **config}
    return plan.make(configuration.check({"fasta": str(fasta), **config}), results, gpu)


# Disk


@pytest.mark.parametrize(
    "settings", [{"layers": [3, 6], "pooling": ["mean", "residues"]}, {"layers": "last", "pooling": "mean"}]
)
def test_files_take_the_disk_that_was_planned(proteins, tmp_path, settings):
    """Means of one layer and of several, and every residue's state."""
    layers = settings["layers"] if isinstance(settings["layers"], list) else [-1]
    pooling = settings["pooling"] if isinstance(settings["pooling"], list) else [settings["pooling"]]
    made = SmallRun(tmp_path)
    made.embed(DEMO_MODEL, proteins, layers=tuple(layers), pooling=tuple(pooling))
    made.merge()
    needs = planned(proteins, model={"name": str(DEMO_MODEL), **settings}, shards=2).disk
    parts = sum((part / "embeddings.h5").stat().st_size for part in made.parts)
    assert needs[disk.MERGED] == pytest.approx(made.embeddings.stat().st_size, rel=0.02)
    assert needs["embeddings.h5 of the shards"] == pytest.approx(parts, rel=0.02)
    texts = sum((tmp_path / f"shards/{number}.fasta").stat().st_size for number in range(2))
    assert needs["sequences of the shards"] == pytest.approx(texts, rel=0.01)


def test_weights_that_are_not_here_take_disk_too(proteins):
    needs = planned(proteins, gpu="H100", model={"name": "facebook/esm2_t33_650M_UR50D"}).disk
    assert needs["weights of the model"] == pytest.approx(2.6e9, rel=0.01)
    assert "weights of the model" not in planned(proteins).disk


def test_text_takes_more_disk_than_numbers(proteins):
    made = planned(proteins)
    npy, tsv = disk.exports(["npy", "tsv"], made.census, made.shards, made.stored).values()
    assert 150 * 192 * 4 < npy < tsv / 2


# Input


def test_the_shards_are_those_that_the_command_shard_makes(proteins, tmp_path):
    made = planned(proteins, shards=3)
    shards.shard({None: Sample([proteins])}, 3, tmp_path, COST)
    written = [(tmp_path / f"{number}.fasta").read_text().splitlines()[1::2] for number in range(3)]
    assert made.shards.sequences.tolist() == [len(sequences) for sequences in written]
    assert made.shards.letters.tolist() == [sum(map(len, sequences)) for sequences in written]
    assert (made.census.records, len(made.census.lengths)) == (150, 125)


def test_a_cluster_is_asked_for_what_the_rule_asks_for(proteins, tmp_path):
    made = planned(proteins, shards=2)
    shards.shard({None: Sample([proteins])}, 2, tmp_path, COST)
    from seqmill.models import hub

    hub.resolve(str(DEMO_MODEL)).save(tmp_path / "weights.json")
    asked = [(tmp_path / "weights.json", tmp_path / f"{number}.fasta") for number in range(2)]
    assert made.host_mb == max(demand.memory_mb(*paths) for paths in asked)
    assert made.minutes == max(demand.runtime_minutes(*paths) for paths in asked)


def test_a_later_sample_is_planned_without_what_earlier_ones_have(proteins, tmp_path):
    other = tmp_path / "other.fasta"
    other.write_text(proteins.read_text() + ">new\nMKTAYIAKQR\n")
    folder = tmp_path / "results/shards/1"
    shards.shard({"a": Sample([proteins])}, 2, folder, COST, earlier_rounds.places([]))
    rounds.write(folder, {"a": [str(proteins)]})
    config = {"fasta": {"a": str(proteins), "b": str(other)}, "model": {"name": str(DEMO_MODEL)}}
    made = plan.make(configuration.check(config), tmp_path / "results")
    assert (made.files, made.samples) == (1, 2)
    assert (made.census.lengths.tolist(), made.census.known) == ([10], 125)


def test_what_a_reused_result_has_is_planned_as_known(proteins, tmp_path):
    """Some, and all; the merged file holds them in any case."""
    some = tmp_path / "some.fasta"
    some.write_text("".join(proteins.read_text().partition(">copy_")[0].splitlines(keepends=True)[:80]))
    earlier = SmallRun(tmp_path / "earlier")
    earlier.embed(DEMO_MODEL, some)
    earlier.merge()
    fresh, reusing = planned(proteins), planned(proteins, reuse=str(earlier.folder))
    assert (fresh.census.known, len(fresh.census.lengths)) == (0, 125)
    assert (reusing.census.known, len(reusing.census.lengths)) == (40, 85)
    assert reusing.disk[disk.MERGED] == pytest.approx(fresh.disk[disk.MERGED])
    assert "; 40 more are in results that are reused" in describe(reusing)
    assert content(reusing)["already_embedded"] == 40
    nothing_new = planned(
        some, reuse=[str(earlier.embeddings)], shards=2, model={"name": str(DEMO_MODEL), "pooling": "residues"}
    )
    assert (nothing_new.census.known, nothing_new.shards.sequences.tolist()) == (40, [0, 0])
    assert nothing_new.disk[disk.MERGED] > nothing_new.census.letters * 4
    assert "0 distinct sequences to embed" in describe(nothing_new)


def test_results_to_reuse_that_are_not_there_or_broken_are_refused(proteins, tmp_path):
    assert "reuse: there is no file or folder nowhere" in refusal(planned, proteins, reuse="nowhere")
    (tmp_path / "embeddings.h5").write_bytes(b"")
    (tmp_path / "index.parquet").write_bytes(b"PAR1")
    assert "index.parquet: its hashes of sequences cannot be read" in refusal(planned, proteins, reuse=str(tmp_path))


def test_sequences_that_a_model_cannot_take_are_refused(tmp_path):
    path = tmp_path / "long.fasta"
    path.write_text(f">short\nMKTA\n>titin\n{'MKTAY' * 300}\n")
    said = refusal(planned, path, model={"name": "facebook/esm1b_t33_650M_UR50S"})
    assert "'titin' has 1,500 residues, and 1,022 are the most that this model takes" in said


@pytest.mark.parametrize(("long", "tokens"), [("full", 1_502), ("window", 3 * 602), ("truncate", 602)])
def test_long_sequences_count_by_their_pieces(tmp_path, long, tokens):
    path = tmp_path / "long.fasta"
    path.write_text(f">titin\n{'MKTAY' * 300}\n")
    made = planned(path, sequences={"long": long, "max_length": 600, "overlap": 100})
    assert made.shards.tokens.tolist() == [tokens]
    assert made.shards.long == (long != "full")


# Time


def test_more_gpus_end_sooner_and_work_as_long(proteins):
    one, four = (planned(proteins, gpu="H100", shards=8, performance={"gpus": n}).estimates[0] for n in (1, 4))
    assert four.wall_s == pytest.approx(one.wall_s / 4, rel=0.05)
    assert four.busy_s == pytest.approx(one.busy_s)


def test_a_larger_model_takes_longer_and_more_memory(proteins):
    names = [f"facebook/esm2_{size}_UR50D" for size in ("t6_8M", "t33_650M", "t48_15B")]
    made = [planned(proteins, gpu="H100", model={"name": name}).estimates[0] for name in names]
    assert made[0].busy_s < made[1].busy_s < made[2].busy_s
    assert made[0].peak_bytes < made[1].peak_bytes < made[2].peak_bytes
    assert not planned(proteins, gpu="L4", model={"name": names[2]}).estimates[0].fits


def test_what_finished_here_counts_more_than_what_was_measured_elsewhere(proteins, tmp_path):
    fresh = planned(proteins, tmp_path, shards=2)
    threads = max(calibration.cpus() // 2, 1)
    work = {"residues": 10**6, "sequences": 3_000, "model_flops_per_s": 1e10, "layers": [6], "dtype": "float32"}
    timings = {"import_s": 3.0, "load_s": 2.0, "first_batch_s": 1.0, "steady_s": 700.0, "close_s": 1.0}
    meta = {**work, "timings": timings, "model": {"name": str(DEMO_MODEL)}, "resumed_after": 0, "out_of_memory": []}
    for shard, times in ((0, 1), (1, 2)):
        folder = tmp_path / f"embed/{shard}"
        folder.mkdir(parents=True)
        slower = {**timings, "steady_s": 700.0 * times}
        device = f"CPU, {threads} threads"
        changed = {**meta, "timings": slower, "device": device, "model_flops_per_s": 1e10 / times}
        (folder / "meta.json").write_text(json.dumps(changed))
    (tmp_path / "embed/2").mkdir()
    (tmp_path / "embed/2/meta.json").write_text("{")
    made = planned(proteins, tmp_path, shards=2)
    assert "from 2 finished shards" in made.estimates[0].device.basis
    assert "finished shard" not in fresh.estimates[0].device.basis
    # 1.5 times the 701 s in which they computed a million residues each, and the start.
    residues = made.census.lengths.sum()
    assert made.estimates[0].busy_s == pytest.approx(2 * 6 + 1_051 * residues / 1e6, rel=0.1)
    # What CPUs can do at the moment no longer matters.
    calibration.measured = lambda: (3e11, 3e10)
    assert planned(proteins, tmp_path, shards=2).estimates[0].busy_s == pytest.approx(made.estimates[0].busy_s)


def test_a_run_for_other_machines_is_planned_for_known_cards(proteins):
    made = planned(proteins, performance={"gpus": 4})
    assert not made.is_settled
    assert [estimate.device.name for estimate in made.estimates][:2] == ["H200", "H100"]
    assert "none of this machine; with 1 at once" not in describe(planned(proteins, shards=4, performance={"gpus": 4}))


# What users see


def test_people_and_programs_are_told_the_same(proteins):
    made = planned(proteins, gpu="NVIDIA H100 80GB HBM3", shards=2)
    said, kept = describe(made), json.loads(json.dumps(content(made)))
    assert "150 records in 1 file; 125 distinct sequences to embed" in said
    assert "1 GPU (H100), in bfloat16" in said
    assert "from measured rates of the H100; of 17 measured runs" in said
    assert (kept["records"], kept["distinct_sequences"], kept["shards"]["count"]) == (150, 125, 2)
    assert kept["devices"][0]["wall_s"] == pytest.approx(made.estimates[0].wall_s, abs=0.1)
    assert kept["disk_bytes"].keys() == made.disk.keys()


def test_the_command_takes_a_configuration_and_flags_over_it(proteins, tmp_path):
    (tmp_path / "config.yaml").write_text(f"fasta: {proteins}\nshards: 3\nmodel:\n  name: {DEMO_MODEL}\n")
    command = (SCRIPTS / "plan.py", "--config", "config.yaml", "--shards", "4", "--layers", "2", "6", "--gpu", "H100")
    done = run(*command, "--json", "--output", "made/plan.json", folder=tmp_path)
    assert done.returncode == 0, done.stdout
    kept = json.loads(done.stdout)
    assert kept == json.loads((tmp_path / "made/plan.json").read_text())
    assert (kept["shards"]["count"], [d["name"] for d in kept["datasets"]]) == (4, ["mean_layer2", "mean_layer6"])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--gpu", "H1000X"], None),
        (["--gpu", "Voodoo2"], "--gpu Voodoo2: nothing is known of such a card; known are B200, "),
        (["--model", "someone/else"], "model someone/else: there is no such folder, and neither seqmill nor"),
        (["--layers", "7"], "layers: there is no layer 7"),
        (["--shards", "none"], "configuration: shards cannot be 'none'"),
        (["--config", "broken.yaml"], "broken.yaml: is not YAML"),
        (["--config", "none.yaml"], "none.yaml: cannot be read"),
    ],
)
def test_mistakes_get_a_sentence(proteins, tmp_path, flags, sentence):
    (tmp_path / "broken.yaml").write_text("a: [")
    done = run(SCRIPTS / "plan.py", "--fasta", proteins, "--model", DEMO_MODEL, *flags, folder=tmp_path)
    if sentence is None:
        assert done.returncode == 0, done.stdout
    else:
        assert_refused(done, sentence)


def test_without_an_input_the_command_says_what_it_needs(tmp_path):
    assert_refused(run(SCRIPTS / "plan.py", folder=tmp_path), "there is no input; give --config or --fasta")
