"""seqmill.embed: the numbers of the command, from all kinds of input, in a process that goes on afterwards."""

import gc
import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import small_run as steps
import torch
from Bio import SeqIO
from embeddings import read_embeddings
from paths import REPOSITORY

import seqmill
from seqmill.engine.pipeline import Pipeline

SETTINGS = {"pooling": ["mean", "residues"], "batch_size": 600, "device": "cpu", "dataloader_workers": 0}


@pytest.fixture(scope="module")
def proteins(small_fasta) -> dict[str, str]:
    return {record.id: str(record.seq) for record in SeqIO.parse(small_fasta, "fasta")}


@pytest.fixture(scope="module")
def expected(tiny_model, small_fasta, tmp_path_factory) -> Path:
    """What the command writes."""
    folder = tmp_path_factory.mktemp("command") / "out"
    assert steps.embed(tiny_model, small_fasta, folder, pooling=("mean", "residues"), batch_size=600, index=True) == 0
    return folder


INPUTS = {
    "path": lambda fasta, proteins: fasta,
    "text": lambda fasta, proteins: str(fasta),
    "dict": lambda fasta, proteins: proteins,
    "list": lambda fasta, proteins: list(proteins.values()),
    "iterator": lambda fasta, proteins: iter(proteins.values()),
    "Biopython": lambda fasta, proteins: SeqIO.parse(fasta, "fasta"),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_every_kind_of_input_gives_the_numbers_of_the_command(tiny_model, small_fasta, proteins, expected, kind):
    values = read_embeddings(expected / "embeddings.h5")
    with seqmill.embed(INPUTS[kind](small_fasta, proteins), tiny_model, **SETTINGS) as found:
        numbers = [str(number) for number in range(1, 25)]
        assert found.ids == (numbers if kind in ("list", "iterator") else list(proteins))
        assert np.array_equal(found.vectors(), values["mean"])
        last = found.ids[-1]
        assert np.array_equal(found.residues(last), values["residues"][values["offsets"][-2] :])
        # The twin is computed once, and says so.
        assert found.index["duplicate_of"].tolist()[-1] == found.ids[2]
        described = found.index["description"].tolist()[-1]
        assert described == ("the same protein under another name" if kind in ("path", "text", "Biopython") else "")


def test_output_keeps_what_the_command_writes(tiny_model, small_fasta, expected, tmp_path):
    seqmill.embed(small_fasta, tiny_model, tmp_path / "out", **SETTINGS).close()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["embeddings.h5", "index.parquet", "meta.json"]
    for name in ("embeddings.h5", "index.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (expected / name).read_bytes()
    with pytest.raises(seqmill.UserError, match="holds a finished result of other pooling"):
        seqmill.embed(small_fasta, tiny_model, tmp_path / "out", device="cpu", dataloader_workers=0)
    again = {"device": "cpu", "dataloader_workers": 0, "overwrite": True}
    assert seqmill.embed(small_fasta, tiny_model, tmp_path / "out", **again).datasets == ["mean"]


def test_a_temporary_result_lives_as_long_as_its_object(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = seqmill.embed(["MKTAYIAK"], tiny_model, device="cpu")
    vector = found["1"]
    assert len(list(tmp_path.iterdir())) == 1
    del found
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    assert np.isfinite(vector).all()
    with pytest.raises(seqmill.UserError):
        seqmill.embed(["MK1"], tiny_model, device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_it_can_be_called_again_and_from_threads_and_leaves_the_process_as_it_was(tiny_model):
    def handler(*_):
        """The notebook's own."""

    before, environment = signal.signal(signal.SIGTERM, handler), dict(os.environ)
    found = []
    try:
        thread = threading.Thread(target=lambda: found.append(seqmill.embed(["MKTAYIAK"], tiny_model, device="cpu")))
        thread.start()
        thread.join()
        found.append(seqmill.embed(["MKTAYIAK"], tiny_model, device="cpu", dataloader_workers=1))
        assert signal.getsignal(signal.SIGTERM) is handler
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert np.array_equal(found[0]["1"], found[1]["1"])
    assert dict(os.environ) == environment
    assert not [thread for thread in threading.enumerate() if thread.name in ("termination", "flush")]


def out_of_memory_above(tokens: int, monkeypatch) -> None:
    submit = Pipeline.submit

    def submit_or_fail(self, batch):
        if batch.token_counts.sum() > tokens:
            self.current = batch
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return submit(self, batch)

    monkeypatch.setattr(Pipeline, "submit", submit_or_fail)
    monkeypatch.setattr("seqmill.engine.oom.recommend_batch_size", lambda *_: (450, "a test"))


def test_out_of_memory_raises_what_would_help(tiny_model, small_fasta, tmp_path, monkeypatch):
    out_of_memory_above(500, monkeypatch)
    with pytest.raises(
        seqmill.OutOfMemory, match=r"^out of memory on cpu \(CUDA out .*\); give batch_size=450, or"
    ) as raised:
        seqmill.embed(small_fasta, tiny_model, tmp_path / "out", **SETTINGS)
    assert raised.value.recommended_batch_size == 450
    assert raised.value.report == json.loads((tmp_path / "out/oom.json").read_text())
    resumed = seqmill.embed(small_fasta, tiny_model, tmp_path / "out", **SETTINGS | {"batch_size": 450})
    assert len(resumed) == 24


def test_on_oom_retry_tries_again_in_this_process(tiny_model, small_fasta, tmp_path, monkeypatch, caplog):
    out_of_memory_above(500, monkeypatch)
    found = seqmill.embed(small_fasta, tiny_model, tmp_path / "out", on_oom="retry", **SETTINGS)
    assert "retry 1 of 3, batch size 450" in caplog.text
    assert len(found) == 24
    out_of_memory_above(0, monkeypatch)
    with pytest.raises(seqmill.OutOfMemory):
        seqmill.embed(small_fasta, tiny_model, tmp_path / "other", on_oom="retry", **SETTINGS)
    assert caplog.text.count("retry 3 of 3") == 1


@pytest.mark.slow
def test_the_first_import_of_torch_may_be_its_own(tiny_model):
    """A fresh process, with a setting that must come before PyTorch; then again, where it is in force already."""
    program = (
        "import sys, seqmill\n"
        "for _ in range(2):\n"
        f"    e = seqmill.embed(['MKTAYIAK'], {str(tiny_model)!r}, device='cpu', expandable_segments=True)\n"
        "    print(e['1'].shape, len(e.residues('1')) if 'residues' in e.datasets else 0)"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "workflow"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "(16,) 0\n" * 2), done.stderr


def test_records_need_no_description(tiny_model):
    record = next(SeqIO.parse(io.StringIO(">a\nMKV\n"), "fasta"))
    record.description = "<unknown description>"
    found = seqmill.embed([record, record.seq], tiny_model, device="cpu", duplicate_ids="number")
    assert found.ids == ["a", "2"]
    assert found.index["description"].tolist() == ["", ""]
