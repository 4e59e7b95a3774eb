"""What pictures show, in numbers."""

import gzip

import numpy as np
import pandas as pd
import pytest
from pictures import groups, meta, write_result

from seqmill.errors import UserError
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.figures import colors, embedding_map, lengths, metadata, shards, spent, style, timeline, vectors
from seqmill.outputs.figures.colors import Categories, Numbers
from seqmill.outputs.figures.projection import project
from seqmill.outputs.figures.words import percent, seconds
from seqmill.outputs.layout import lay_out
from seqmill.units import GIB


def counted(tmp_path, **columns) -> lengths.Lengths:
    pd.DataFrame(columns).to_parquet(tmp_path / "index.parquet")
    return lengths.count(tmp_path / "index.parquet")


def test_lengths_are_counted_by_what_was_done_with_them(tmp_path):
    found = counted(
        tmp_path, length=[10, 30, 10, 2000, 5000], windows=[1, 1, 1, 3, 1], embedded=[10, 30, 10, 2000, 1022]
    )
    assert found.values.tolist() == [10, 30, 2000, 5000]
    assert found.counts.tolist() == [[2, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert (found.records, found.letters, found.quantile(0.5)) == (5, 7050, 30)


def test_lengths_of_earlier_versions_are_whole(tmp_path):
    assert counted(tmp_path, length=[7, 7, 9]).counts.tolist() == [[2, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("values", [[5], [1, 2], [20, 21, 400], [1, 10_000_000], list(range(1, 3000))])
def test_bins_have_every_record_and_every_letter(tmp_path, values):
    found = counted(tmp_path, length=values)
    edges, is_logarithmic = lengths.edges(found)
    assert found.binned(edges, in_letters=False).sum() == len(values)
    assert found.binned(edges, in_letters=True).sum() == sum(values)
    assert is_logarithmic == (max(values) >= 10 * min(values))


def test_the_parts_of_a_job_add_up_to_it():
    on_gpu, on_cpu = shards.of(meta(), "0"), shards.of(meta(gpu=None), "0")
    for shard in (on_gpu, on_cpu):
        assert shard.duration == pytest.approx(125)
        assert (shard.starting, shard.steady, shard.closing) == pytest.approx((20, 100, 5))
    assert on_gpu.parts["computing"] == 85
    assert on_gpu.parts["GPU idle between batches"] == 10
    assert on_cpu.parts["computing"] == 95
    assert "GPU idle" not in on_cpu.waits
    parts, waits = spent.add_up([on_gpu, on_cpu])
    assert sum(parts.values()) == pytest.approx(250)
    assert waits["host waiting for the reader"] == 6


def test_earlier_versions_noted_only_when_a_job_ended_and_the_memory_in_words():
    old = shards.of(meta(), "0")
    new = shards.of(meta(started="2026-11-20T09:57:55.000+00:00", host="node1"), "0")
    assert old.started == pytest.approx(new.started)
    assert old.memory["device_bytes"] == 140 * GIB
    assert shards.of(meta(gpu=None, host="node1"), "0").place == "node1"


def test_shards_of_a_gpu_share_a_row_unless_they_ran_at_once():
    times = [("GPU-b", "10:00:00"), ("GPU-a", "10:00:00"), ("GPU-b", "10:02:10"), ("GPU-b", "10:03:00")]
    found = [shards.of(meta(gpu, f"2026-11-20T{at}+00:00"), str(n)) for n, (gpu, at) in enumerate(times)]
    planned = timeline.plan(found)
    assert planned.rows == ["GPU-a", "GPU-b", "GPU-b"]
    assert {bar.shard.name: (bar.row, bar.begin) for bar in planned.bars} == {
        "1": (0, 0),
        "0": (1, 0),
        "2": (1, 130),
        "3": (2, 180),
    }
    assert planned.makespan == pytest.approx(305)
    assert planned.busy == pytest.approx(4 * 125 / (3 * 305))


def test_a_job_that_stood_by_begins_when_the_device_is_its_own():
    """So that two jobs of one GPU, one behind the other, are in one row."""
    started = "2026-11-20T10:00:00+00:00"
    first, second = meta() | {"started": started}, meta() | {"started": started}
    second["timings"] |= {"wait_s": 121.0}
    one, two = shards.of(first, "0"), shards.of(second, "1")
    assert two.started - one.started == 5 + 1 + 121
    assert (one.duration, two.duration) == pytest.approx((125, 119))
    assert two.starting == pytest.approx(14)
    assert timeline.plan([one, two]).rows == ["GPU-0"]
    brief = meta() | {"started": started}
    brief["timings"] |= {"wait_s": 0.1}
    assert shards.of(brief, "2").started == one.started
    assert shards.of(brief, "2").duration == pytest.approx(125.1)


def test_days_in_which_nothing_ran_are_left_out():
    found = [shards.of(meta(created=f"2026-11-{day}T10:00:00+00:00"), day) for day in ("22", "20")]
    planned = timeline.plan(found)
    assert sorted((bar.begin, bar.shard.name) for bar in planned.bars) == [(0, "20"), (pytest.approx(125), "22")]
    assert planned.pauses == [(pytest.approx(125), pytest.approx(2 * 86400 - 125))]


def test_a_sample_comes_from_everywhere_and_is_always_the_same():
    rows = vectors.choose(1_000_000, 1000)
    assert np.array_equal(rows, vectors.choose(1_000_000, 1000))
    assert np.array_equal(rows // 1000, np.arange(1000))
    assert vectors.choose(5, 1000).tolist() == [0, 1, 2, 3, 4]


def test_groups_stay_groups_on_the_map():
    (plane, *_) = project(groups(3, 20, 40).astype(np.float32))
    points = plane.points.reshape(3, 40, 2)
    inside = np.linalg.norm(points - points.mean(1, keepdims=True), axis=2).max()
    between = min(np.linalg.norm(a.mean(0) - b.mean(0)) for a, b in ((points[0], points[1]), (points[1], points[2])))
    assert between > 3 * inside


@pytest.mark.parametrize("values", [np.ones((2, 4)), np.ones((9, 4)), np.eye(5, 1)], ids=["few", "same", "narrow"])
def test_what_has_no_map_says_why(values):
    with pytest.raises(style.NotDrawn, match=r"three sequences|the same|one value"):
        project(values.astype(np.float32))


def test_residues_alone_are_averaged(tmp_path):
    counts = np.array([2, 3, 1])
    residues = np.arange(12.0).reshape(6, 2)
    write_result(tmp_path, ["a", "b", "c"], residues, counts, per="token")
    with EmbeddingFile(tmp_path / "embeddings.h5") as file:
        sample = vectors.take(file)
    assert sample.values.tolist() == [[1, 2], [6, 7], [10, 11]]
    assert sample.source == "the mean of residues of layer 33"


def test_what_describes_the_rows_is_no_embedding(tmp_path):
    states = Dataset("max", "max", "sequence", 33, 2, np.dtype(np.float16))
    others = [Dataset("mean", "mean", "sequence", 5, 2, np.dtype(np.float32))]
    others.append(Dataset("mean_windows", "windows", "sequence", None, 1, np.dtype(np.int32)))
    path = tmp_path / "embeddings.h5"
    lay_out(path, ["a"], np.array([5]), np.array([5]), [states, others[1]], {"layers": [33]})
    with EmbeddingFile(path) as file:
        assert vectors.take(file).source == "max of layer 33"
    lay_out(path, ["a"], np.array([5]), np.array([5]), [states, *others], {"layers": [5, 33]})
    with EmbeddingFile(path) as file:
        assert vectors.take(file).source == "mean of layer 5"


TABLE = "name,taxon,id\nx,Bacteria,b\nx,,c\nx,Archaea,P12345\nx,Virus,b\n"


@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "table.txt", "table.csv.gz", "table.parquet"])
def test_tables_are_read_by_id_in_every_form(tmp_path, name):
    path = tmp_path / name
    text = TABLE if "csv" in name else TABLE.replace(",", "\t")
    if name.endswith("parquet"):
        pd.DataFrame([line.split(",") for line in TABLE.split()[1:]], columns=["name", "taxon", "id"]).to_parquet(path)
    elif name.endswith("gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    found = metadata.read_column(path, "taxon", ["c", "b", "sp|P12345|X_ECOLI", "unknown"])
    assert colors.by_column("taxon", found).labels == ["Archaea", "Bacteria"]
    assert colors.by_column("taxon", found).values.tolist() == [-1, 1, 0, -1]


def test_without_a_column_id_the_first_one_has_them(tmp_path):
    (tmp_path / "table.tsv").write_text("Entry\tscore\nNA\t1.5\nnull\t-2\n")
    found = metadata.read_column(tmp_path / "table.tsv", "score", ["NA", "null", "x"])
    coloring = colors.by_column("score", found)
    assert isinstance(coloring, Categories | Numbers)
    np.testing.assert_equal(coloring.values, [1.5, -2, np.nan])


@pytest.mark.parametrize(
    ("content", "column", "says"),
    [
        ("id\ttaxon\n", "taxn", "has no column taxn; did you mean taxon?"),
        ("id\tother\n", "zzz", "its columns are id, other"),
        ("", "taxon", "cannot be read as a table"),
        (b"\xff\xfe\x00\x01", "taxon", "cannot be read as a table"),
    ],
)
def test_a_bad_table_is_one_sentence(tmp_path, content, column, says):
    path = tmp_path / "table.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"table\.tsv") as caught:
        metadata.read_column(path, column, ["a"])
    assert says in str(caught.value)


def test_rare_categories_are_one_and_names_of_clusters_are_no_numbers():
    many = pd.Series([name for n, name in enumerate("abcdefghij") for _ in range(10 - n)] + [None])
    found = colors.by_column("kind", many)
    assert found.labels == [*"abcdefg", "3 others"]
    assert colors.counts(found, range(len(many))).tolist() == [10, 9, 8, 7, 6, 5, 4, 6]
    assert not found.known[-1]
    assert isinstance(colors.by_column("cluster", pd.Series(["0", "1", "2", "1"])), Categories)
    assert isinstance(colors.by_column("flag", pd.Series([True, False, True])), Categories)
    assert isinstance(colors.by_column("year", pd.Series(map(str, range(1950, 1990)))), Numbers)


def test_ids_of_rows_are_read_block_by_block(tmp_path, monkeypatch):
    pd.DataFrame({"id": [f"p{n}" for n in range(10)]}).to_parquet(tmp_path / "index.parquet")
    monkeypatch.setattr(embedding_map, "BLOCK_ROWS", 3)
    assert embedding_map.read_ids(tmp_path / "index.parquet", np.array([0, 2, 3, 9])) == ["p0", "p2", "p3", "p9"]


def test_numbers_in_words():
    said = [seconds(value) for value in (0, 0.31, 12.4, 200, 3600, 18240, 183600)]
    assert said == ["0.0 s", "0.31 s", "12 s", "3 min 20 s", "1 h", "5 h 4 min", "2 days 3 h"]
    assert [percent(share) for share in (0, 0.0001, 0.041, 0.34)] == ["0 %", "under 0.1 %", "4.1 %", "34 %"]
