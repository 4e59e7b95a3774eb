"""What messages call a record of a shard."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from seqmill.inputs.lookup import called


def digest(letters: str) -> str:
    return hashlib.sha256(letters.encode()).hexdigest()


def write_table(folder: Path, kind: pa.DataType, **letters: str) -> Path:
    """A table of records by id; the path of a shard beside it."""
    hashes = [hashlib.sha256(text.encode()) for text in letters.values()]
    values = [found.hexdigest() if kind == pa.string() else found.digest() for found in hashes]
    table = pa.table({"id": list(letters), "sequence_sha256": pa.array(values, kind)})
    # In several groups of rows, as of a large input.
    parquet.write_table(table, folder / "records.parquet", row_group_size=2)
    return folder / "0.fasta"


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(32)], ids=["text", "binary"])
def test_it_is_the_first_record_with_the_sequence(tmp_path, kind):
    shard = write_table(tmp_path, kind, a="ACGT", b="CC", c="GG", d="CC", e="TT")
    assert [called(digest(letters), shard) for letters in ("CC", "TT")] == ["'b'", "'e'"]
    assert called(digest("AA"), shard).startswith(f"'{digest('AA')}' (the sequence_sha256 of records in ")


@pytest.mark.parametrize("content", [None, b"", b"no table"], ids=["missing", "empty", "damaged"])
def test_without_the_table_it_says_where_to_look_the_hash_up(tmp_path, content):
    if content is not None:
        (tmp_path / "records.parquet").write_bytes(content)
    name = digest("ACGT")
    expected = f"'{name}' (the sequence_sha256 of records in records.parquet and index.parquet)"
    assert called(name, tmp_path / "0.fasta") == expected


def test_other_records_keep_their_ids(tmp_path):
    shard = write_table(tmp_path, pa.string(), a="ACGT")
    assert called("sp|P0A6F5|CH60", shard) == "'sp|P0A6F5|CH60'"
    assert called(digest("ACGT"), None) == f"'{digest('ACGT')[:60]}...'"
    assert called("u" * 100, shard) == f"'{'u' * 60}...'"
