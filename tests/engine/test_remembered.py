"""What jobs remember of each other."""

import json
import logging

import pytest

from seqmill.engine import remembered
from seqmill.engine.remembered import Remembered

H100 = {"device": "H100", "versions": {"torch": "2.11"}}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    return tmp_path / "seqmill"


def test_what_one_job_measured_the_next_does_not_measure():
    assert Remembered(H100).get("rates") is None
    assert Remembered(H100).recall("rates", lambda: {"8192": 2.5}) == {"8192": 2.5}
    again = Remembered(H100)
    assert again.recall("rates", lambda: pytest.fail("measured again")) == again.get("rates") == {"8192": 2.5}


def test_other_circumstances_are_measured_for_themselves():
    Remembered(H100).recall("attention", lambda: "triton")
    assert Remembered({**H100, "versions": {"torch": "2.13"}}).get("attention") is None
    assert Remembered(H100).get("kernel") is None


@pytest.mark.parametrize("content", ["", "[]", '{"for": 1}', '{"for": {}, "found": {"attention": "sdpa"}}', "\\x00"])
def test_a_damaged_file_is_measured_anew(content, cache):
    one = Remembered(H100)
    one.recall("attention", lambda: "triton")
    one.path.write_text(content)
    assert Remembered(H100).recall("attention", lambda: "torch") == "torch"
    assert json.loads(one.path.read_text())["found"] == {"attention": "torch"}


def test_where_nothing_can_be_written_the_job_goes_on(cache, caplog):
    cache.write_text("a file in the way")
    with caplog.at_level(logging.DEBUG, "seqmill"):
        assert Remembered(H100).recall("attention", lambda: "torch") == "torch"
    assert "not remembered" in caplog.text


def test_it_lies_where_triton_keeps_its_kernels(monkeypatch, tmp_path):
    assert remembered.folder() == tmp_path / "seqmill"
    monkeypatch.delenv("TRITON_CACHE_DIR")
    monkeypatch.setenv("TRITON_HOME", str(tmp_path / "home"))
    assert remembered.folder() == tmp_path / "home/.triton/cache/seqmill"
