"""Pictures of results: every file is there, shows something, and says what it must."""

import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import processes
import pytest
from matplotlib.image import imread
from paths import SCRIPTS
from pictures import groups, meta, write_result
from refusals import assert_refused
from small_run import SmallRun

from seqmill.outputs.figures import album, lengths, memory, shards, spent, style, timeline
from seqmill.outputs.figures.album import Result
from seqmill.planning.pictures import WORDS


def words(path: Path) -> str:
    """The text of an SVG."""
    return " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text()))


def assert_shows(path: Path, width: int = 1350) -> None:
    """A PNG of the right width with more than a few dots on it."""
    pixels = imread(path)[..., :3]
    assert pixels.shape[1] == width
    assert (pixels.min(axis=2) < 0.9).mean() > 0.003


@pytest.fixture(scope="module")
def drawn(small_run: SmallRun, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures") / "figures"
    album.write(Result(small_run.embeddings, small_run.index, small_run.parts), folder)
    return folder


def test_there_is_an_svg_and_a_png_of_each(drawn):
    assert {path.name for path in drawn.iterdir()} == {f"{name}.{kind}" for name in WORDS for kind in ("svg", "png")}


@pytest.mark.parametrize("name", WORDS)
def test_each_shows_something(drawn, name):
    # The map is wider where UMAP is installed.
    if name == "map":
        assert imread(drawn / "map.png").shape[1] >= 1350
    else:
        assert_shows(drawn / f"{name}.png")


def test_they_say_what_is_to_be_seen(drawn):
    assert "24 sequences" in words(drawn / "lengths.svg")
    assert "length (residues" in words(drawn / "map.svg")
    assert "2 shards on the CPU" in words(drawn / "timeline.svg")
    assert "loading the model" in words(drawn / "time.svg")
    assert "the host has" in words(drawn / "memory.svg")
    assert "PyTorch SDPA" in words(drawn / "settings.svg")
    assert "float32" in words(drawn / "settings.svg")


def test_the_same_result_gives_the_same_bytes(drawn, small_run, tmp_path):
    style.save(lengths.draw(lengths.count(small_run.index), "residues"), tmp_path, "lengths")
    assert (tmp_path / "lengths.svg").read_bytes() == (drawn / "lengths.svg").read_bytes()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_what_cannot_be_drawn_says_so(tmp_path, count):
    write_result(tmp_path, ["a", "b"][:count], np.eye(2, 8)[:count], np.array([5, 7])[:count])
    album.write(Result(tmp_path / "embeddings.h5", tmp_path / "index.parquet"), tmp_path / "figures")
    assert "a map needs three sequences at least" in words(tmp_path / "figures/map.svg")
    assert "no meta.json of a shard was given" in words(tmp_path / "figures/timeline.svg")
    assert ("the result holds no sequences" in words(tmp_path / "figures/lengths.svg")) == (count == 0)


def test_the_map_is_coloured_by_a_column(tmp_path):
    ids = [f"p{n}" for n in range(90)]
    write_result(tmp_path, ids, groups(3, 8, 30), np.full(90, 50))
    kinds = ["Bacteria", "$x_1$ & <b>", ""]
    lines = [f"{name}\t{kinds[n // 30]}" for n, name in enumerate(ids)]
    (tmp_path / "table.tsv").write_text("id\tkind\n" + "\n".join(lines))
    result = Result(tmp_path / "embeddings.h5", tmp_path / "index.parquet", (), "bases", tmp_path / "table.tsv", "kind")
    album.write(result, tmp_path)
    said = words(tmp_path / "map.svg")
    assert "Bacteria (30)" in said
    assert "$x_1$ &amp; &lt;b&gt; (30)" in said
    assert "no value (30)" in said
    assert imread(tmp_path / "map.png").shape[1] >= 1350


def test_gpus_have_a_row_each_and_a_line_of_their_memory(tmp_path):
    style.prepare()
    found = [shards.of(meta(f"GPU-{n % 8}"), str(n)) for n in range(24)]
    for name, draw in (("timeline", timeline.draw), ("time", spent.draw), ("memory", memory.draw)):
        style.save(draw(found), tmp_path, name)
        assert_shows(tmp_path / f"{name}.png")
    assert "24 shards on 8 GPUs" in words(tmp_path / "timeline.svg")
    assert "GPU idle between batches" in words(tmp_path / "time.svg")
    assert "at most 8.0 GiB, 5.7 % of what there is" in words(tmp_path / "memory.svg")


def test_the_command_refuses_in_one_sentence(small_run, tmp_path):
    flags = ["--embeddings", small_run.embeddings, "--index", small_run.index, "--output", tmp_path / "figures"]
    done = processes.run(SCRIPTS / "figures.py", *flags, "--color", "x")
    assert_refused(done, "--metadata and --color belong together")
    done = processes.run(SCRIPTS / "figures.py", "--embeddings", tmp_path / "none.h5", *flags[2:])
    assert_refused(done, "none.h5: there is no such file")
    foreign = tmp_path / "foreign"
    write_result(foreign, ["a"], np.eye(1, 8), np.array([5]))
    done = processes.run(SCRIPTS / "figures.py", *flags[:2], "--index", foreign / "index.parquet", *flags[4:])
    assert_refused(done, "lists 1 sequences, but")


@pytest.mark.slow
def test_half_a_million_sequences_are_a_sample_in_bounded_time(tmp_path):
    """What is read, placed and drawn does not grow with the result; the SVG stays small."""
    count = 500_000
    write_result(tmp_path, [f"p{n}" for n in range(count)], groups(10, 64, count // 10), np.full(count, 300))
    begun = time.perf_counter()
    album.write(Result(tmp_path / "embeddings.h5", tmp_path / "index.parquet"), tmp_path)
    print(f"{time.perf_counter() - begun:.0f} s")
    assert "50,000 sequences, a random sample of 500,000" in words(tmp_path / "map.svg")
    assert (tmp_path / "map.svg").stat().st_size < 2e6
    assert imread(tmp_path / "map.png").shape[1] >= 1350


def test_lengths_within_a_decade_have_no_other_labels_than_those_of_ticks(tmp_path):
    """Of a logarithmic axis without whole decades matplotlib labels minor ticks as well, in formulas."""
    index = tmp_path / "index.parquet"
    pd.DataFrame({"length": [60, 100, 156, 220, 470, 560, 935]}).to_parquet(index)
    style.prepare()
    made = lengths.draw(lengths.count(index), "residues", limit=1022)
    made.savefig(tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    assert "mathdefault" not in text
    # What lies beyond the axis is not in the legend.
    assert "trained on" not in text
    made = lengths.draw(lengths.count(index), "residues", limit=512)
    made.savefig(tmp_path / "y.svg")
    assert "trained on up to 512" in (tmp_path / "y.svg").read_text()
