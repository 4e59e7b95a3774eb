"""SHA256SUMS beside the shards: it tells every damage to a shard, and to itself."""

import shutil
import subprocess

import pytest
from refusals import refusal, shard

from seqmill.inputs import sha256sums

FILES = ("0.fasta", "1.fasta", "2.fasta", "records.parquet")


@pytest.fixture
def folder(tmp_path, small_fasta):
    shard(small_fasta, 3, tmp_path / "shards")
    return tmp_path / "shards"


def test_sha256sum_agrees_with_the_checksums(folder):
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"{name}: OK" for name in FILES]


def test_files_as_written_are_verified(folder):
    for name in FILES:
        sha256sums.verify(folder / name)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a bit flipped": (
        lambda f: flip_a_bit(f / "1.fasta"),
        "1.fasta: is damaged, its SHA-256 is not the one in SHA256SUMS",
    ),
    "truncated": (
        lambda f: (f / "1.fasta").write_bytes(b""),
        "1.fasta: is damaged, its SHA-256 is not the one in SHA256SUMS",
    ),
    "another shard's": (lambda f: shutil.copy(f / "0.fasta", f / "1.fasta"), "1.fasta: is damaged, its SHA-256 is not"),
    "missing": (lambda f: (f / "1.fasta").unlink(), "1.fasta: cannot be read (No such file or directory)"),
    "not listed": (
        lambda f: sha256sums.write(f, {"0.fasta": "0" * 64}),
        "1.fasta: is not listed in the SHA256SUMS beside it",
    ),
    "no checksums": (lambda f: (f / "SHA256SUMS").unlink(), "SHA256SUMS: cannot be read (No such file or directory)"),
    "checksums empty": (lambda f: (f / "SHA256SUMS").write_bytes(b""), "1.fasta: is not listed in the SHA256SUMS"),
    "checksums truncated": (lambda f: (f / "SHA256SUMS").write_bytes(b"0123abcd"), "SHA256SUMS: is damaged"),
    "checksums no text": (lambda f: (f / "SHA256SUMS").write_bytes(b"\xff\xfe\x00"), "SHA256SUMS: is damaged"),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGES.values(), ids=DAMAGES)
def test_damage_to_a_shard_or_its_checksum_is_reported(folder, damage, says):
    damage(folder)
    sentence = refusal(sha256sums.verify, folder / "1.fasta")
    assert sentence.startswith(f"{folder}/{says}")
    assert sentence.endswith("; run again with --forcerun shard")
