"""Warnings before the work starts: what takes most of the time, and what is mostly unknown."""

import numpy as np
import pytest

from seqmill.inputs import outliers, shards
from seqmill.inputs.sample import Sample
from seqmill.models.esm2.family import COST as cost


def shard(tmp_path, records: dict[str, str]) -> None:
    path = tmp_path / "input.fasta"
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records.items()))
    shards.shard({None: Sample([path])}, 2, tmp_path / "shards", cost)


def proteins(count: int) -> dict[str, str]:
    letters = "ACDEFGHIKLMNPQRSTVWY"
    return {f"p{i}": letters[i % 20] * 3 + letters[i // 20 % 20] * 297 for i in range(count)}


def test_a_sequence_that_takes_most_of_the_time_is_named(tmp_path, caplog):
    shard(tmp_path, {"titin": "MKTAYIAKQR" * 3_435, **proteins(100)})
    (said,) = caplog.messages
    share = cost(np.array([34_350]))[0] / (cost(np.array([34_350]))[0] + 100 * cost(np.array([300]))[0])
    assert said.startswith(
        f"1 sequence alone takes {share:.0%}".replace("%", " %") + " of the predicted time: titin (34,350"
    )
    assert "with more shards" in said


def test_long_ids_are_cut(tmp_path, caplog):
    shard(tmp_path, {"u" * 10_000: "X" * 30})
    assert f": {'u' * 60}... (30 X of 30 letters)" in caplog.text
    assert len(caplog.text) < 500


def test_few_short_ones_are_not_worth_a_word(tmp_path, caplog):
    shard(tmp_path, proteins(3))
    assert caplog.messages == []


def test_a_sequence_that_is_mostly_unknown_is_named(tmp_path, caplog):
    shard(tmp_path, {"unknown": "X" * 1_500 + "MKV", "half": "X" * 10 + "M" * 10, **proteins(40)})
    (said,) = caplog.messages
    assert said.startswith("1 sequence is more than half X, which says nothing: unknown (1,500 X of 1,503 letters)")


def test_letters_that_were_replaced_are_unknown_too(tmp_path, caplog):
    path = tmp_path / "input.fasta"
    path.write_text(">gaps\n" + "-" * 60 + "MKV\n")
    shards.shard({None: Sample([path], invalid="replace")}, 1, tmp_path / "shards", cost)
    assert "gaps (60 X of 63 letters)" in caplog.text


def test_ten_are_named_and_all_counted(tmp_path, caplog):
    shard(tmp_path, {f"u{i}": "X" * (100 + i) for i in range(25)})
    (said,) = caplog.messages
    assert said.startswith("25 sequences are more than half X")
    assert said.count("letters)") == 10
    # The longest first.
    assert "u24 (124 X of 124 letters)" in said
    assert "u14 " not in said


@pytest.mark.parametrize("block", [1, 2, 2**22])
@pytest.mark.parametrize("sequences", [["MXK", "XX"], ["XMK", "XXX", "MKV", "MKX"], []])
def test_unknown_letters_are_counted_in_packed_ones_too(sequences, block, monkeypatch):
    monkeypatch.setattr(outliers, "BLOCK", block)
    letters = np.frombuffer("".join(sequences).encode(), dtype=np.uint8)
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
    assert outliers.count(letters, offsets, b"X").tolist() == [sequence.count("X") for sequence in sequences]
