"""What holds for every format that results are exported to, each read back with a library that it is for."""

import contextlib
import os
from pathlib import Path
from urllib.parse import unquote

import duckdb
import h5py
import numpy as np
import pandas as pd
import polars as pl
import pytest
from disks import disk
from refusals import SCRIPTS, assert_refused, refusal, run_python
from sample_result import ATTRIBUTES, DESCRIPTIONS, IDS, LENGTHS, ROWS, VECTORS, index, parts, write_result

from seqmill.outputs import export as exporting
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.export import export
from seqmill.outputs.formats import FORMATS, biotrainer, h5_per_id, source, tsv

NAMES = [dataset.name for dataset in VECTORS]
# "NA" is an id here.
TSV = {"sep": "\t", "keep_default_na": False}
LETTERS = "ACDEFGHIKLMNPQRSTVWY"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks of few records."""
    monkeypatch.setattr(source, "RECORDS", 4)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A folder with a result, and the values of its datasets. Not to be changed."""
    folder = tmp_path_factory.mktemp("result")
    fasta = [
        f">{name} {text}\n{sequence}\n" for name, text, sequence in zip(IDS, DESCRIPTIONS, sequences(), strict=True)
    ]
    (folder / "all.fasta").write_text("".join(fasta))
    return folder, write_result(folder)


def sequences() -> list[str]:
    """Of the lengths; the ninth again as the tenth."""
    made = ["".join(np.random.default_rng(row).choice(list(LETTERS), length)) for row, length in enumerate(LENGTHS)]
    return [*made[:9], made[6], *made[10:]]


def run(result, name, folder) -> str:
    return export(result / "embeddings.h5", result / "index.parquet", name, folder, [result / "all.fasta"])


def read_h5(folder: Path):
    found = {}
    for name in NAMES:
        with h5py.File(folder / f"{name}.h5") as file:
            by_id = {unquote(key): value[:] for key, value in file.items()}
            assert {unquote(key): value.attrs["original_id"] for key, value in file.items()} == {i: i for i in by_id}
        found[name] = np.stack([by_id.pop(i) for i in pd.read_parquet(folder / "index.parquet")["id"]])
        assert not by_id
    return pd.read_parquet(folder / "index.parquet"), found


def read_biotrainer(folder: Path):
    """As its loader does: by the hash of each sequence in the FASTA."""
    lines = (folder / "sequences.fasta").read_text().splitlines()
    hashes = [biotrainer.hash_of(line.encode()) for line in lines[1::2]]
    titles = [line[1:].split(" ", 1) for line in lines[::2]]
    found = {}
    for name in NAMES:
        with h5py.File(folder / f"{name}.h5") as file:
            assert len(file) == len(set(hashes)) == len(IDS) - 1
            found[name] = np.stack([file[key][:] for key in hashes])
    # It computes the same for the same sequence.
    found = {name: np.vstack([values[:9], result_twin(values), values[10:]]) for name, values in found.items()}
    return index().assign(id=[title[0] for title in titles], description=[title[1] for title in titles]), found


def result_twin(values):
    return values[6:7]


def read_parquet(folder: Path):
    table = pl.read_parquet(folder / "embeddings.parquet")
    return table.drop(NAMES).to_pandas(), {name: table[name].to_numpy() for name in NAMES}


def read_npy(folder: Path):
    found = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in NAMES}
    assert all(isinstance(values, np.memmap) for values in found.values())
    assert (folder / "ids.txt").read_text().split() == IDS
    return pd.read_parquet(folder / "index.parquet"), found


def read_h5ad(folder: Path):
    """As the format is documented; that anndata reads it is tested below."""
    found = {}
    for name in NAMES:
        with h5py.File(folder / f"{name}.h5ad") as file:
            found[name] = file["X"][:]
            obs, names = file["obs"], [file["obs"].attrs["_index"], *file["obs"].attrs["column-order"]]
            columns = {
                column: obs[column].asstr()[:] if obs[column].dtype == object else obs[column][:] for column in names
            }
    return pd.DataFrame(columns), found


def read_tsv(folder: Path):
    kinds = dict.fromkeys(range(1, 13), np.float32) | {0: str}
    tables = {name: pd.read_csv(folder / f"{name}.tsv", dtype=kinds, **TSV) for name in NAMES}
    assert all(table["id"].tolist() == IDS for table in tables.values())
    found = {name: table.iloc[:, 1:].to_numpy() for name, table in tables.items()}
    # Text has no half precision, but all of its digits.
    found["max_layer2"] = found["max_layer2"].astype(np.float16)
    return pd.read_csv(folder / "index.tsv", **TSV), found


READ = {
    "h5-per-id": read_h5,
    "biotrainer": read_biotrainer,
    "parquet": read_parquet,
    "npy": read_npy,
    "anndata": read_h5ad,
    "tsv": read_tsv,
}
every_format = pytest.mark.parametrize("name", FORMATS)


def text(table: pd.DataFrame) -> dict[str, list[str]]:
    """The columns as text, what is missing as nothing."""
    return {name: ["" if pd.isna(value) else str(value) for value in table[name].tolist()] for name in table}


@every_format
def test_ids_order_duplicates_descriptions_and_values_come_back(result, name, tmp_path):
    folder, values = result
    said = run(folder, name, tmp_path / "out" / name)
    assert said.startswith(f"11 records in {tmp_path}/out/{name}: ")
    records, found = READ[name](tmp_path / "out" / name)
    assert text(records) == text(index())
    for each in NAMES:
        expected = values[each]
        if name == "biotrainer":
            expected = np.vstack([expected[:9], expected[6:7], expected[10:]])
        assert found[each].dtype == expected.dtype
        np.testing.assert_array_equal(found[each], expected)


@every_format
def test_rows_per_token_are_written_or_named_as_left_out(result, name, tmp_path):
    folder, values = result
    said = run(folder, name, tmp_path / name)
    if "token" not in FORMATS[name].takes:
        assert said.endswith("left out: residues_layer2, token_starts, which h5-per-id, biotrainer or npy can hold")
        assert not list((tmp_path / name).glob("residues*"))
        return
    assert "left out" not in said
    keys = {
        "h5-per-id": [h5_per_id.name_of(each) for each in IDS],
        "biotrainer": [biotrainer.hash_of(each.encode()) for each in sequences()],
    }
    for dataset in ROWS:
        if name == "npy":
            offsets, stored = (np.load(tmp_path / name / f"{each}.npy") for each in ("offsets", dataset.name))
            found = [stored[offsets[row] : offsets[row + 1]] for row in range(len(IDS))]
        else:
            with h5py.File(tmp_path / name / f"{dataset.name}.h5") as file:
                found = [file[key][:] for key in keys[name]]
        for row, (own, expected) in enumerate(zip(found, parts(values[dataset.name]), strict=True)):
            if name != "biotrainer" or row != 9:
                assert own.dtype == expected.dtype
                np.testing.assert_array_equal(own, expected)


@every_format
def test_a_result_without_an_index_has_ids_and_values(result, name, tmp_path):
    """As shards, and what version 0.1 of the command embed wrote."""
    folder, values = result
    export(folder / "embeddings.h5", None, name, tmp_path / name, [folder / "all.fasta"])
    if name == "parquet":
        assert pd.read_parquet(tmp_path / name)["id"].tolist() == IDS
    with contextlib.suppress(FileNotFoundError):
        np.testing.assert_array_equal(np.load(tmp_path / name / "mean_layer1.npy"), values["mean_layer1"])


@every_format
def test_a_full_disk_is_one_sentence_and_leaves_nothing(name, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "check_space", lambda *_: None)
    large = [VECTORS[0].__class__(**{**vars(VECTORS[0]), "width": 3_000})]
    write_result(tmp_path / "result", large)
    fasta = tmp_path / "all.fasta"
    fasta.write_text("".join(f">{i}\n{sequence}\n" for i, sequence in zip(IDS, sequences(), strict=True)))
    with disk(tmp_path / "small", "size=64k") as small:
        files = tmp_path / "result/embeddings.h5", tmp_path / "result/index.parquet"
        assert refusal(export, *files, name, small / name, [fasta]).startswith(f"{small}: the disk is full")
        assert list(small.iterdir()) == []


@every_format
def test_an_interrupted_export_leaves_nothing_and_the_next_one_cleans_up(result, name, tmp_path, monkeypatch):
    folder, _ = result
    killed = tmp_path / f".{name}.1234567.tmp"
    killed.mkdir()
    (killed / "half").write_text("half")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(folder, name, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    run(folder, name, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def interrupted(*_):
    raise KeyboardInterrupt


def test_what_was_done_to_sequences_is_a_column_of_the_index_and_no_vector(tmp_path):
    windows = Dataset("windows", "windows", "sequence", None, 1, np.dtype("i4"))
    values = write_result(tmp_path / "result", [VECTORS[0], windows])
    table = pd.read_parquet(tmp_path / "result/index.parquet").assign(windows=values["windows"][:, 0])
    table.to_parquet(tmp_path / "result/index.parquet", index=False)
    for name in ("parquet", "npy"):
        export(tmp_path / "result/embeddings.h5", tmp_path / "result/index.parquet", name, tmp_path / name)
    found = pd.read_parquet(tmp_path / "parquet/embeddings.parquet")
    assert found.columns.tolist() == [*table.columns, VECTORS[0].name]
    assert found["windows"].tolist() == values["windows"][:, 0].tolist()
    assert [path.name for path in (tmp_path / "npy").glob("*.npy")] == [f"{VECTORS[0].name}.npy"]


def test_nothing_is_replaced(result, tmp_path):
    (tmp_path / "mine").write_text("mine")
    assert refusal(run, result[0], "npy", tmp_path) == f"{tmp_path}: is there already; remove it, or give a new folder"
    (tmp_path / "empty").mkdir()
    run(result[0], "npy", tmp_path / "empty")
    assert (tmp_path / "mine").read_text() == "mine"


def test_too_little_space_is_said_before_anything_is_written(result, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting.shutil, "disk_usage", lambda _: type("", (), {"free": 100}))
    assert "the export needs 0.0 GB, but the disk has 0.0 GB free" in refusal(run, result[0], "npy", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_export_is_refused(tmp_path):
    write_result(tmp_path / "r", ROWS)
    files = tmp_path / "r/embeddings.h5", tmp_path / "r/index.parquet"
    assert refusal(export, *files, "parquet", tmp_path / "x").endswith(
        "holds residues_layer2, token_starts only, and parquet takes one vector per sequence; take h5-per-id, biotrainer or "
        "npy, or embed with pooling mean, too"
    )


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda path: path.unlink(), "there is no such file"),
        (lambda path: path.write_text("x"), "is not an index of seqmill"),
        (lambda path: index()[["length"]].to_parquet(path), "has no column id"),
        (lambda path: index()[:-1].to_parquet(path), "lists other sequences than"),
        (lambda path: index()[::-1].to_parquet(path), "lists other sequences than"),
    ],
)
def test_a_bad_index_is_refused(edit, says, tmp_path):
    write_result(tmp_path / "r")
    edit(tmp_path / "r/index.parquet")
    files = tmp_path / "r/embeddings.h5", tmp_path / "r/index.parquet"
    assert says in refusal(export, *files, "npy", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_text_of_large_results_is_refused_with_what_to_take_instead(result, tmp_path, monkeypatch):
    monkeypatch.setattr(tsv, "MAX_BYTES", 1_000)
    assert "take the format parquet or npy" in refusal(run, result[0], "tsv", tmp_path / "x")


def test_biotrainer_needs_the_sequences_that_were_embedded(result, tmp_path):
    folder, _ = result
    files = folder / "embeddings.h5", folder / "index.parquet", "biotrainer", tmp_path / "x"
    assert "give --fasta" in refusal(export, *files)
    other = tmp_path / "other.fasta"
    lines = (folder / "all.fasta").read_text().splitlines(keepends=True)
    for changed, says in (
        (lines[:-2], "there are more or fewer"),
        ([*lines[2:4], *lines[:2], *lines[4:]], "sequence 1 is"),
    ):
        other.write_text("".join(changed))
        assert says in refusal(export, *files, [other])


def test_hdf5_per_id_is_named_and_has_no_groups(result, tmp_path):
    run(result[0], "h5-per-id", tmp_path / "x")
    with h5py.File(tmp_path / "x/mean_layer2.h5") as file:
        assert all(isinstance(value, h5py.Dataset) for value in file.values())
        assert file["sp|P1|X%2F1-20"].shape == (12,)
        assert file.attrs["model_name"] == "esm2_t6_8M_UR50D_mean_layer2"
        assert file.attrs["dtype"] == ATTRIBUTES["dtype"]


def test_duckdb_and_pandas_read_parquet_and_what_made_it_is_in_it(result, tmp_path):
    folder, values = result
    run(folder, "parquet", tmp_path / "x")
    path = tmp_path / "x/embeddings.parquet"
    found = duckdb.sql(f"select id, mean_layer2, max_layer2 from '{path}' where duplicate_of is not null").fetchall()
    assert [row[0] for row in found] == ["twin"]
    np.testing.assert_array_equal(np.float32(found[0][1]), values["mean_layer2"][9])
    np.testing.assert_array_equal(np.float16(found[0][2]), values["max_layer2"][9])
    np.testing.assert_array_equal(np.stack(pd.read_parquet(path)["mean_layer1"]), values["mean_layer1"])
    assert "facebook/esm2_t6_8M_UR50D" in pl.read_parquet_metadata(path)["seqmill"]


def test_anndata_reads_h5ad_whole_and_backed(result, tmp_path):
    anndata = pytest.importorskip("anndata", reason="needs another pandas than the pinned one")
    folder, values = result
    run(folder, "anndata", tmp_path / "x")
    for backed in (None, "r"):
        found = anndata.read_h5ad(tmp_path / "x/mean_layer2.h5ad", backed=backed)
        np.testing.assert_array_equal(found.X[:], values["mean_layer2"])
        assert found.obs_names.tolist() == IDS
        assert found.obs["description"].tolist() == DESCRIPTIONS
        assert found.obs["length"].tolist() == LENGTHS.tolist()
        assert found.uns["model"] == ATTRIBUTES["model"]


def test_the_command_takes_a_folder_or_its_files(result, tmp_path):
    folder, values = result
    command = [SCRIPTS / "export.py", "--format", "npy", "--embeddings"]
    done = run_python(*command, folder, "--output", tmp_path / "deep/one")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("11 records in")
    files = [folder / "embeddings.h5", "--index", folder / "index.parquet"]
    assert run_python(*command, *files, "--output", tmp_path / "two").returncode == 0
    for name in ("deep/one", "two"):
        np.testing.assert_array_equal(np.load(tmp_path / name / "mean_layer2.npy"), values["mean_layer2"])
    assert_refused(run_python(*command, tmp_path, "--output", tmp_path / "three"), "holds no embeddings.h5")
