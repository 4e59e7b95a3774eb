"""Hostile input: whatever it is, the result is right or one clear sentence says what is wrong.

Nothing of it is executed, nothing is written outside the results, and memory stays bounded.
"""

import errno
import gzip
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from seqmill import fasta, files, merged, settings, shards, weights
from seqmill.errors import UserError
from seqmill.fasta import read_all

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = REPOSITORY / "workflow/scripts"
PROTEOME = REPOSITORY / "resources/ecoli_k12_UP000000625.fasta.gz"

GOOD = b">a first\nMKTAYIAKQR\n>b second\nMKVLAAGG\n"
RECORDS = [("a", b"MKTAYIAKQR"), ("b", b"MKVLAAGG")]


def written(folder, content, name="input.fasta"):
    path = folder / name
    path.write_bytes(content)
    return path


def records(path, invalid="error"):
    return [(protein.id, protein.sequence) for protein in read_all([path], invalid)]


def refusal(call, *arguments):
    """The sentence in which a call refuses its arguments."""
    with pytest.raises(UserError) as refused:
        call(*arguments)
    sentence = str(refused.value)
    assert sentence.isprintable(), f"more than one line, or unprintable: {sentence[:500]!r}"
    assert len(sentence) < 500, sentence
    return sentence


def run(*command, **options):
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, timeout=300, check=False, **options
    )


def run_shard(path, output, **options):
    return run(SCRIPTS / "shard.py", "--fasta", path, "--shards", 1, "--output", output, **options)


def listing(folder):
    """What lies in a folder and beside it."""
    return sorted(path.name for path in folder.iterdir()), sorted(path.name for path in folder.parent.iterdir())


# gzip


def test_gzip_cut_off_anywhere_is_refused(tmp_path):
    """Two members; only between them a cut leaves a whole file behind."""
    first, second = gzip.compress(GOOD[:20]), gzip.compress(GOOD[20:])
    content = first + second
    for stop in range(2, len(content)):
        path = written(tmp_path, content[:stop])
        if stop == len(first):
            assert records(path) == RECORDS[:1]
        else:
            assert "the gzip data is truncated or damaged" in refusal(records, path)
    assert records(written(tmp_path, content)) == RECORDS


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_large_gzip_cut_off_in_its_middle_is_refused(tmp_path, share):
    content = PROTEOME.read_bytes()
    path = written(tmp_path, content[: int(share * len(content))])
    assert "the gzip data is truncated or damaged" in refusal(records, path)


def test_damaged_gzip_and_damaged_text_are_read_or_refused(tmp_path):
    """Bytes changed at random: no exception but the one with a sentence."""
    dice = random.Random(0)
    sentences = []
    for source in (GOOD, gzip.compress(GOOD)):
        for _ in range(200):
            content = bytearray(source)
            for _ in range(dice.randint(1, 4)):
                content[dice.randrange(len(content))] = dice.randrange(256)
            try:
                found = records(written(tmp_path, bytes(content)), dice.choice(["error", "replace"]))
                assert all(name and sequence for name, sequence in found)
            except UserError as error:
                sentences.append(str(error))
    assert 100 < len(sentences) < 400
    assert all(sentence.startswith(f"{tmp_path}/input.fasta") for sentence in sentences)
    assert all(sentence.isprintable() for sentence in sentences)


def bomb(path, start, run, gigabytes=4):
    """gzip of `start`, then of one character for gigabytes: in members, which are all alike, to have it in no time."""
    member = gzip.compress(run * 2**24)
    with path.open("wb") as file:
        file.write(gzip.compress(start))
        for _ in range(gigabytes * 2**30 // 2**24):
            file.write(member)


BOMBS = {
    "sequence": (b">a\nMKT\n>b long\n", b"M", "line 3: record 'b' has more than 10,000,000 residues"),
    "sequence in short lines": (b">a\nMKT\n>b long\n", b"MK\n", "line 3: record 'b' has more than 10,000,000 residues"),
    "id": (b">a\nMKT\n>", b"b", "line 3: here are more than 15,000,000 characters of description or blank lines"),
    "description": (b">a\nMKT\n>b ", b"b", "line 3: here are more than 15,000,000 characters of description"),
    "no header": (b"", b"M", "line 1: a FASTA file starts with '>', this one with 'MMMM"),
    "zeros": (b"", b"\0", "is no text file"),
    "blank line": (b"", b" ", "line 1: here are more than 15,000,000 characters of description or blank lines"),
    "empty lines": (b">a\nMKT\n", b"\n", "line 15000003: here are more than 15,000,000 characters of description"),
}
SLOW_BOMBS = ("sequence in short lines",)


@pytest.mark.parametrize(
    ("start", "endless", "says"),
    [pytest.param(*case, id=name, marks=[pytest.mark.slow] * (name in SLOW_BOMBS)) for name, case in BOMBS.items()],
)
def test_a_gzip_bomb_is_refused_in_bounded_memory(tmp_path, start, endless, says):
    path = tmp_path / "bomb.fasta.gz"
    bomb(path, start, endless)
    assert path.stat().st_size < 16e6

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))

    # Without it NumPy's threads take address space for stacks, the more CPUs the more.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = run_shard(path, tmp_path / "shards", preexec_fn=limit, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {path}")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert list((tmp_path / "shards").iterdir()) == []


# Long lines


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("length", [fasta.PIECE - 1, fasta.PIECE, fasta.PIECE + 1, 3 * fasta.PIECE])
def test_lines_longer_than_a_piece_are_read_whole(tmp_path, length, end):
    sequence = bytes(random.Random(length).choices(b"ACDEFGHIKLMNPQRSTVWY", k=length))
    path = written(tmp_path, b">a" + end + sequence + end + b">b" + end + b"MKT" + end)
    assert records(path) == [("a", sequence), ("b", b"MKT")]


@pytest.mark.parametrize("invalid", ["error", "replace"])
def test_a_header_sign_at_a_seam_begins_no_record(tmp_path, invalid):
    path = written(tmp_path, b">a\n" + b"M" * fasta.PIECE + b">b MKT\n>c\nMKV\n")
    assert f"line 1: record 'a' has a '>' at position {fasta.PIECE + 1} of its sequence" in refusal(
        records, path, invalid
    )


def test_a_header_without_its_line_end_before_it_is_never_made_residues(tmp_path):
    assert "has a '>' at position 4" in refusal(records, written(tmp_path, b">a\nMKT>b\nMKV\n"), "replace")
    # A byte order mark stays where files that begin with one are joined.
    joined = written(tmp_path, b">a\nMKT\n\xef\xbb\xbf>b\nMKV\n")
    assert "line 1: record 'a' has a '>' at position 7" in refusal(records, joined, "replace")


def test_long_descriptions_do_not_matter(tmp_path):
    long = b">" * 10_000_000
    path = written(tmp_path, b">a " + long + b"\nMKT\n>b\t" + long + b"\r\nMKV\n>c " + long + b"\r\rMKA\r")
    assert records(path) == [("a", b"MKT"), ("b", b"MKV"), ("c", b"MKA")]


def test_blank_characters_for_longer_than_a_piece_do_not_matter(tmp_path):
    blank = b" " * (fasta.PIECE + 5)
    path = written(tmp_path, blank + b"\n>a\n" + blank + b"MKT" + blank + b"AY\n" + blank + b"\n>b\nMKV" + blank)
    assert records(path) == [("a", b"MKTAY"), ("b", b"MKV")]


def test_the_longest_id_and_one_beyond_it(tmp_path):
    longest = "i" * (fasta.PIECE - 2)
    assert records(written(tmp_path, f">{longest} x\nMKT\n".encode())) == [(longest, b"MKT")]
    sentence = refusal(records, written(tmp_path, f">a\nMKT\n>{longest}i x\nMKT\n".encode()))
    assert f"line 3: record '{'i' * 60}...' has an id of more than 1,048,574 characters" in sentence


def test_long_ids_are_shortened_in_sentences(tmp_path):
    path = written(tmp_path, b">" + b"i" * 100_000 + b"\nMKT?\n")
    assert refusal(records, path).startswith(f"{path}, line 1: record '{'i' * 60}...' has '?' at position 4")


def test_the_longest_sequence_and_one_beyond_it(tmp_path):
    longest = b"M" * (fasta.MAX_RESIDUES - 1)
    assert records(written(tmp_path, b">a\n" + longest + b"\n")) == [("a", longest)]
    path = written(tmp_path, b">a\nMK\n>b\n" + longest + b"MK\n")
    assert refusal(records, path).startswith(f"{path}, line 3: record 'b' has more than 10,000,000 residues")


def test_a_million_empty_lines_anywhere_do_not_matter(tmp_path):
    gap = b"\n" * 500_000 + b"\r\n" * 250_000 + b" \n" * 250_000
    path = written(tmp_path, gap + b">a\nMKT\n" + gap + b"AY\n" + gap + b">b\n" + gap + b"MKV\n" + gap)
    found = list(read_all([path]))
    assert [(protein.id, protein.sequence) for protein in found] == [("a", b"MKTAY"), ("b", b"MKV")]
    assert [protein.line for protein in found] == [1_000_001, 3_000_004]


# Odd bytes


def test_null_bytes_in_a_description_do_not_matter(tmp_path):
    assert records(written(tmp_path, b">a \0de\0scription\0\nMKT\n")) == [("a", b"MKT")]


@pytest.mark.parametrize("name", [b"\0", b"a\0", b"a\0b", b"\xff\xfe", b"a\x1b[31m", "a\u202eb".encode(), b"a\x7f"])
def test_ids_that_no_terminal_should_see_are_refused(tmp_path, name):
    assert "is not printable UTF-8 text" in refusal(records, written(tmp_path, b">" + name + b" x\nMKT\n"))


def test_line_ends_of_all_kinds_in_one_file(tmp_path):
    assert records(written(tmp_path, b">a\rMK\r\nTA\nYI\r>b\n\rMKV\r\n\r\n")) == [("a", b"MKTAYI"), ("b", b"MKV")]


@pytest.mark.parametrize("invalid", ["error", "replace"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16", "utf-32"])
def test_text_in_other_encodings_is_refused(tmp_path, encoding, invalid):
    for content in (GOOD.decode().encode(encoding), gzip.compress(GOOD.decode().encode(encoding))):
        refusal(records, written(tmp_path, content), invalid)


def test_white_space_of_unicode_in_a_sequence_is_dropped(tmp_path):
    assert records(written(tmp_path, ">a\nMK\u00a0TA\u2028Y\u3000\n".encode())) == [("a", b"MKTAY")]


# What is no file


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/stdin"])
def test_devices_and_pipes_are_refused(tmp_path, path):
    done = run_shard(path, tmp_path / "shards", stdin=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == f"error: {path}: is a pipe or a device; write the sequences to a file and give that\n"


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.fasta")
    assert "is a pipe or a device" in refusal(records, tmp_path / "pipe.fasta")


def test_links_are_followed_to_files_only(tmp_path):
    written(tmp_path, GOOD, "good.fasta")
    for name, target in (("good", "good.fasta"), ("dangling", "nowhere"), ("circular", "circular")):
        (tmp_path / name).symlink_to(target)
    assert records(tmp_path / "good") == RECORDS
    assert "cannot be read (No such file or directory)" in refusal(records, tmp_path / "dangling")
    assert "cannot be read (Too many levels of symbolic links)" in refusal(records, tmp_path / "circular")


# A full disk


@pytest.fixture
def full(tmp_path):
    """A folder on a disk of its own, of 1 MiB."""
    folder = tmp_path / "full"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder):
    """Leave no room on a disk."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (4096, 1):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)


def says_full(folder):
    return f"error: {folder}: the disk is full or the quota used up; make room and run the same command again\n"


@pytest.mark.parametrize("count", [5_000, 40_000])
def test_shard_on_a_full_disk_ends_in_one_sentence(full, tmp_path, count):
    """In the second case already the sequences do not fit, in the first the shards and the table."""
    letters = str.maketrans("0123456789", "ACDEFGHIKL")
    sequences = (f"{'MKTAYIAKQR' * 10}{number}".translate(letters) for number in range(count))
    path = written(tmp_path, "".join(f">p{i}\n{sequence}\n" for i, sequence in enumerate(sequences)).encode())
    done = run_shard(path, full / "shards")
    assert done.returncode == 1
    assert done.stderr == says_full(full / "shards")
    assert not (full / "shards/SHA256SUMS").exists()
    assert not list((full / "shards").glob(".*"))


def test_weights_on_a_full_disk_end_in_one_sentence(full, demo_model):
    fill(full)
    done = run(SCRIPTS / "weights.py", "--model", demo_model, "--output", full / "weights.json")
    assert done.returncode == 1
    assert done.stderr == says_full(full)
    assert [path.name for path in full.iterdir()] == ["filler"]


def test_messages_on_a_full_disk_end_in_one_sentence(tmp_path):
    path = written(tmp_path, GOOD)
    with Path("/dev/full").open("w") as device:
        command = [
            sys.executable,
            SCRIPTS / "shard.py",
            "--fasta",
            path,
            "--shards",
            "1",
            "--output",
            tmp_path / "shards",
        ]
        done = subprocess.run(command, stdout=device, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: the disk is full or the quota used up; make room and run the same command again\n"


def test_a_log_on_a_full_disk_prints_no_tracebacks(tmp_path):
    """The log's own disk is full, and standard error then goes elsewhere: nothing about the log is to be seen."""
    program = f"""
import logging, sys
sys.path.insert(0, {str(REPOSITORY / "workflow")!r})
from seqmill import cli
seen, sys.stderr = sys.stderr, open("/dev/full", "w", buffering=1)
cli.set_up_logging()
sys.stderr = seen
logging.getLogger("seqmill").info("this line has no room")
print("went on")
"""
    done = run("-c", program)
    assert (done.returncode, done.stdout, done.stderr.count("Logging error")) == (0, "went on\n", 0)


def test_a_full_disk_is_known_however_a_library_says_it(full):
    fill(full)
    frame = pd.DataFrame({"a": np.arange(10_000)})
    writes = [
        lambda: (full / "text").write_text("x" * 10_000),
        lambda: h5py.File(full / "new.h5", "w"),
        lambda: frame.to_parquet(full / "new.parquet"),
        lambda: frame.to_csv(full / "new.csv"),
    ]
    for write in writes:
        with pytest.raises(OSError, match="No space left") as failed:
            write()
        assert files.is_disk_full(failed.value)


# As h5py says it where it flushes.
FLUSH = "Unable to synchronously flush file (file write failed: time = Sun Nov 22 19:18:26 2026\n, filename = 'a.h5', file descriptor = 3, errno = {}, error message = '...', buf = 0x55672688f620)"


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (RuntimeError(FLUSH.format(errno.ENOSPC)), True),
        (RuntimeError(FLUSH.format(errno.EDQUOT)), True),
        (RuntimeError(FLUSH.format(errno.EIO)), False),
        (OSError(errno.EIO, "Input/output error"), False),
        (ValueError("28"), False),
    ],
)
def test_a_full_disk_is_told_from_other_failures(error, full):
    assert files.is_disk_full(error) is full
    later = ValueError("while it was cleaned up")
    later.__context__ = error
    assert files.is_disk_full(later) is full


# Leftovers


def test_leftovers_of_a_killed_writer_go_with_the_next_one(tmp_path):
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(REPOSITORY / "workflow")!r})
from pathlib import Path
from seqmill.files import write_atomically
with write_atomically(Path({str(tmp_path / "[0].json")!r})) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run("-c", program).returncode == -signal.SIGKILL
    (leftover,) = tmp_path.iterdir()
    assert leftover.read_text() == "half"
    others = [".0.json.7.tmp", ".[0].json.x.tmp", ".[0].json.gz.7.tmp", "[0].json.7.tmp"]
    for name in others:
        (tmp_path / name).touch()
    files.write_json(tmp_path / "[0].json", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "[0].json"])


def test_what_was_there_stays_when_a_writer_fails(tmp_path):
    files.write_json(tmp_path / "x.json", 1)
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "x.json", {1, 2})
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert files.read_json(tmp_path / "x.json") == 1


# Model folders


@pytest.fixture
def model_copy(demo_model, tmp_path):
    """A copy of the demonstration model to break, in a folder of its own."""
    return Path(shutil.copytree(demo_model, tmp_path / "models/model"))


class Malicious:
    """Unpickled without care it leaves a file in the working directory."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


def load_model(folder):
    import torch

    from seqmill import model

    found = weights.resolve(str(folder))
    return model.load(found, model.read_config(found), torch.float32, torch.device("cpu"), "sdpa")


def tensors_of(folder):
    return load_file(folder / "model.safetensors")


def as_bin(folder, content, **options):
    import torch

    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin", **options)
    return folder / "pytorch_model.bin"


def pickled(folder):
    as_bin(folder, {}).write_bytes(pickle.dumps(Malicious()))


def path_traversal(folder):
    with zipfile.ZipFile(as_bin(folder, tensors_of(folder)), "a") as archive:
        archive.writestr("../../pwned", "x")
        archive.writestr("/tmp/pwned", "x")


def tar(folder):
    with tarfile.open(as_bin(folder, {}), "w") as archive:
        for name in ("../pwned", "storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))


def zip_bomb(folder):
    """A few kilobytes that make a string of 64 MB; it could be of any size."""
    with zipfile.ZipFile(as_bin(folder, {}), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02X\0\0\0\x04" + b"a" * 2**26 + b".")
        archive.writestr("archive/version", "3\n")


def safetensors_header(folder, size, header):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", size) + header)


def safetensors_of_exabytes(folder):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**30, 2**28], "data_offsets": [0, 2**60]}}).encode()
    safetensors_header(folder, len(header), header)


def quantised(folder):
    import torch

    save_file(
        {name: tensor.to(torch.int8) for name, tensor in tensors_of(folder).items()}, folder / "model.safetensors"
    )


def named_pipe(folder):
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


def dangling_link(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../blobs/none")


def folder_for_weights(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def hundred_megabytes_of_config(folder):
    with (folder / "config.json").open("wb") as file:
        file.truncate(10**8)


UNSAFE = "a .bin file is damaged, or holds more than weights, which can run code, and was not loaded"
HOSTILE_MODELS = {
    "malicious pickle": (lambda f: as_bin(f, {"a": Malicious()}), UNSAFE),
    "malicious pickle of old": (lambda f: as_bin(f, {"a": Malicious()}, _use_new_zipfile_serialization=False), UNSAFE),
    "malicious pickle alone": (pickled, UNSAFE),
    "path traversal": (path_traversal, "the weights cannot be loaded"),
    "tar": (tar, UNSAFE),
    "zip bomb": (zip_bomb, "the weights cannot be loaded (the archive is compressed)"),
    "list of tensors": (lambda f: as_bin(f, [*tensors_of(f).values()]), "something else than named tensors"),
    "names without tensors": (
        lambda f: as_bin(f, dict.fromkeys(tensors_of(f), "x")),
        "something else than named tensors",
    ),
    "numbers for names": (lambda f: as_bin(f, dict(enumerate(tensors_of(f).values()))), "else than named tensors"),
    "header of 2^60 bytes": (lambda f: safetensors_header(f, 2**60, b"{}"), "the weights cannot be loaded"),
    "header of 90 MB in a small file": (lambda f: safetensors_header(f, 90_000_000, b"{}"), "the weights cannot"),
    "deeply nested header": (lambda f: safetensors_header(f, 10**6, b"[" * 10**6), "the weights cannot be loaded"),
    "tensor of 2^60 bytes": (safetensors_of_exabytes, "the weights cannot be loaded"),
    "quantised weights": (quantised, "is of type torch.int8; get weights that are not quantised"),
    "named pipe": (named_pipe, "model.safetensors is no file, or a link to none"),
    "dangling link": (dangling_link, "model.safetensors is no file, or a link to none"),
    "folder for weights": (folder_for_weights, "model.safetensors is no file, or a link to none"),
    "config.json of 100 MB": (
        hundred_megabytes_of_config,
        "config.json cannot be used (it has more than 1,000,000 bytes)",
    ),
    "deeply nested config.json": (
        lambda f: (f / "config.json").write_text("[" * 400_000),
        "config.json cannot be used",
    ),
    "deeply nested objects": (
        lambda f: (f / "config.json").write_text('{"a":' * 100_000),
        "config.json cannot be used",
    ),
    "number of 10,000 digits": (lambda f: (f / "config.json").write_text("9" * 10_000), "config.json cannot be used"),
    "config.json no text": (lambda f: (f / "config.json").write_bytes(b"\x80\xff" * 9), "config.json cannot be used"),
    "size of NaN": (lambda f: edit_config(f, hidden_size=float("nan")), "lacks sizes of the model or has wrong ones"),
    "epsilon of NaN": (lambda f: edit_config(f, layer_norm_eps=float("nan")), "lacks sizes"),
    "negative size": (lambda f: edit_config(f, intermediate_size=-768), "lacks sizes"),
    "10^12 layers": (lambda f: edit_config(f, num_hidden_layers=10**12), "the checkpoint lacks the tensor"),
    "width of 10^30": (lambda f: edit_config(f, hidden_size=10**30, num_attention_heads=1), "do not fit config.json"),
    "list for a type": (lambda f: edit_config(f, model_type=["esm"]), "config.json cannot be used"),
}


@pytest.mark.parametrize(("damage", "says"), HOSTILE_MODELS.values(), ids=HOSTILE_MODELS)
def test_a_hostile_model_is_refused_and_executes_nothing(model_copy, tmp_path, monkeypatch, damage, says):
    monkeypatch.chdir(tmp_path)
    damage(model_copy)
    before = listing(model_copy.parent)
    # 2 GiB more than PyTorch already has.
    with Path("/proc/self/statm").open() as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + 2 * 2**30, limits[1]))
    try:
        sentence = refusal(load_model, model_copy)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert sentence.startswith(f"model {model_copy}: ")
    assert says in sentence
    assert listing(model_copy.parent) == before
    assert listing(tmp_path)[0] == ["models"]
    assert not Path("/tmp/pwned").exists()


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_weights_that_are_links_work(model_copy, kind):
    """A hub's cache holds links to blobs whose names have no suffix."""
    path = model_copy / "model.safetensors" if kind == "safetensors" else as_bin(model_copy, tensors_of(model_copy))
    blobs = model_copy.parent / "blobs"
    blobs.mkdir()
    for file in (path, model_copy / "config.json"):
        blob = blobs / files.sha256(file)
        file.rename(blob)
        file.symlink_to(f"../blobs/{blob.name}")
    loaded, _ = load_model(model_copy)
    assert loaded.layer_count == 6


# The configuration


@pytest.mark.parametrize(
    "path", ["a{x}.fasta", "{{x}}.fasta", "{", "a}.fasta", "a\nb.fasta", "a\x1b[31m.fasta", "a\0b.fasta"]
)
def test_paths_that_snakemake_cannot_take_are_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    if "\0" not in path:
        written(tmp_path, GOOD, path)
        (tmp_path / "models" / path).mkdir(parents=True)
    says = "braces" if "{" in path or "}" in path else "a line end or another control character"
    sentence = refusal(settings.fasta_files, {"fasta": [path]})
    assert sentence.startswith("configuration: fasta: ")
    assert says in sentence
    sentence = refusal(settings.model_files, f"models/{path}")
    assert sentence.startswith("configuration: model.name: ")
    assert says in sentence


def test_paths_to_something_else_than_a_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("folder").mkdir()
    Path("dangling").symlink_to("nowhere")
    Path("circular").symlink_to("circular")
    for path in ("pipe", "folder", "/dev/zero", "/dev/null"):
        assert f"fasta: {path} is a folder, a pipe or a device" in refusal(settings.fasta_files, {"fasta": path})
    for path in ("dangling", "circular", "missing", "x" * 300):
        assert f"fasta: there is no file {path} to read (" in refusal(settings.fasta_files, {"fasta": path})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    """As another user; root may read everything."""
    path = written(tmp_path, GOOD)
    path.chmod(0)
    program = f"import sys; sys.path.insert(0, {str(REPOSITORY / 'workflow')!r})\nfrom seqmill import cli, fasta\n"
    program += f"import os; os.seteuid(65534)\ncli.run(lambda: len(list(fasta.read_proteins({str(path)!r}))))"
    done = run("-c", program)
    assert (done.returncode, done.stderr) == (1, f"error: {path}: cannot be read (Permission denied)\n")


# Names that a shell, Snakemake, HDF5 or a file system might take for something else.
HOSTILE_NAMES = [
    "a space",
    "'single'",
    '"double"',
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "| touch pwned",
    "&& touch pwned #",
    "> pwned",
    "*",
    "[!a]?",
    "~",
    "back\\slash\\n",
    "%s%n%(a)s",
    "--output",
    "-",
    "CON",
    "Case",
    "case",
    "caf\u00e9",  # as one letter, and as a letter and an accent
    "cafe\u0301",
    "\u65e5\u672c\u8a9e",
    "\U0001f9ec",
]
HOSTILE_IDS = [
    *(name.replace(" ", "_") for name in HOSTILE_NAMES),
    "{wildcard}",
    "{{wildcard}}",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b/c",
    ".",
    "..",
    "None",
    "nan",
    "NA",
    "null",
    "0",
    "1e5",
    "=1+1",
    "<b>",
    ">",
    "i" * 100_000,
]


def test_hostile_names_go_through_the_whole_workflow(fresh_project, tmp_path, demo_model):
    """One run with every name as a file, as a model folder and, in it, as ids; each id twice for its own sequence.

    The sequences are one residue long and upwards; each comes a second time in the last file under another id.
    """
    project = fresh_project(tmp_path / "parent/ $(touch pwned) `touch pwned` 'project\" ;*")
    folder = project.folder
    model = folder / f"-m {''.join(HOSTILE_NAMES)}"
    model.mkdir()
    for file in demo_model.iterdir():
        (model / file.name).symlink_to(file)
    paths = [f"{name}.fasta" for name in HOSTILE_NAMES]
    ids = HOSTILE_IDS
    sequences = ["ACDEFGHIKLMNPQRSTVWY"[i % 20] * (1 + i // 20) for i in range(len(ids))]
    for path in paths:
        (folder / path).write_text("")
    given = []
    for number, (name, sequence) in enumerate(zip(ids, sequences, strict=True)):
        path = paths[number % len(paths)]
        with (folder / path).open("a") as file:
            file.write(f">{name} {path}\n{sequence}\n")
    (folder / "-last").symlink_to("twins")
    (folder / "twins").write_text("".join(f">twin_{number}\n{sequence}\n" for number, sequence in enumerate(sequences)))
    for start in range(len(paths)):
        given += list(zip(ids[start :: len(paths)], sequences[start :: len(paths)], strict=True))
    given += [(f"twin_{number}", sequence) for number, sequence in enumerate(sequences)]

    project.configure(fasta=[*paths, "-last"], shards=2, model={"name": model.name, "dtype": "float32"})
    before, beside = listing(folder)
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    assert listing(folder) == (sorted([*before, ".snakemake", "logs", "results"]), beside)

    index = pd.read_parquet(folder / "results/index.parquet")
    with h5py.File(folder / "results/embeddings.h5") as file:
        found, lengths, mean = file["ids"].asstr()[:].tolist(), file["lengths"][:], file["mean"][:]
        assert file.attrs["model"] == model.name
    assert found == [name for name, _ in given]
    assert index["id"].tolist() == found
    assert lengths.tolist() == index["length"].tolist() == [len(sequence) for _, sequence in given]
    originals = dict(reversed([(sequence, name) for name, sequence in given]))
    expected = [None if originals[sequence] == name else originals[sequence] for name, sequence in given]
    assert [None if pd.isna(name) else name for name in index["duplicate_of"]] == expected
    assert np.isfinite(mean).all()
    rows = {sequence: row for row, (_, sequence) in enumerate(given)}
    assert all((mean[row] == mean[rows[sequence]]).all() for row, (_, sequence) in enumerate(given))
    assert len(np.unique(mean, axis=0)) == len(rows)
    assert project.plan() == []


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("project", {"fasta": "a{x}.fasta"}),
        ("project", {"model": {"name": "m{x}"}}),
        ("{x}", {}),
    ],
)
def test_snakemake_refuses_a_path_before_any_job(fresh_project, tmp_path, small_fasta, name, edit):
    project = fresh_project(tmp_path / name)
    written(project.folder, GOOD, "a{x}.fasta")
    (project.folder / "m{x}").mkdir()
    project.configure(**({"fasta": str(small_fasta), "shards": 1} | edit))
    done = project.snakemake()
    assert done.returncode != 0
    assert "Traceback" not in done.stdout, done.stdout
    assert "configuration: " in done.stdout or "the folder of seqmill: " in done.stdout
    assert project.jobs(done.stdout) == []
    assert project.results() == []


# Lengths


def embed(found, path, folder, **chosen):
    from seqmill.job import Job, Settings

    job = Job(path, folder, found, Settings(device="cpu", workers=0, **chosen), "", time.perf_counter())
    assert job.run() == 0
    with h5py.File(folder / "embeddings.h5") as file:
        return {name: file[name][:] for name in file}


def test_a_folder_that_cannot_be_written_ends_in_one_sentence(tmp_path, small_fasta):
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can make a file system read-only")
    folder = tmp_path / "read-only"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        command = [
            sys.executable,
            SCRIPTS / "shard.py",
            "--fasta",
            small_fasta,
            "--shards",
            "1",
            "--output",
            folder / "out",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
    finally:
        subprocess.run(["umount", folder], check=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {folder}/out: Read-only file system; give this user")
    assert "Traceback" not in done.stderr


def test_merge_on_a_full_disk_ends_in_one_sentence(full, demo_model, tmp_path):
    shards.shard(read_all([written(tmp_path, GOOD)]), 1, tmp_path / "shards")
    embed(weights.resolve(str(demo_model)), tmp_path / "shards/0.fasta", tmp_path / "0")
    fill(full)
    done = run(
        *(SCRIPTS / "merge.py", "--folders", tmp_path / "0", "--records", tmp_path / "shards/records.parquet"),
        *("--embeddings", tmp_path / "embeddings.h5", "--index", full / "index.parquet"),
    )
    assert done.returncode == 1
    assert done.stderr == says_full(full)
    assert [path.name for path in full.iterdir()] == ["filler"]


def test_many_sequences_of_one_residue(tmp_path, demo_model):
    letters = "ACDEFGHIKLMNPQRSTVWYXBUZO"
    path = written(tmp_path, "".join(f">p{i}\n{letters[i * 7 % 25]}\n" for i in range(5_000)).encode())
    shards.shard(read_all([path]), 3, tmp_path / "shards")
    table = pd.read_parquet(tmp_path / "shards/records.parquet")
    assert table["shard"].value_counts().to_dict() == {0: 1_800, 1: 1_600, 2: 1_600}
    found = weights.resolve(str(demo_model))
    folders = [tmp_path / f"{shard}" for shard in range(3)]
    for shard, folder in enumerate(folders):
        embed(found, tmp_path / f"shards/{shard}.fasta", folder, pooling=("mean", "residues"))
    merged.merge(folders, tmp_path / "shards/records.parquet", tmp_path / "all.h5", tmp_path / "index.parquet")
    with h5py.File(tmp_path / "all.h5") as file:
        mean, residues, offsets = file["mean"][:], file["residues"][:], file["offsets"][:]
    assert offsets.tolist() == list(range(5_001))
    # The mean of one residue is that residue's state, and the letters come again after 25 sequences.
    np.testing.assert_allclose(mean, residues, rtol=1e-6)
    assert (mean[:-25] == mean[25:]).all()
    assert len(np.unique(mean, axis=0)) == 25


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """An ESM-2 of random weights: one layer, one head."""
    import torch
    from transformers import EsmConfig, EsmForMaskedLM

    config = EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=64,
        position_embedding_type="rotary",
        emb_layer_norm_before=False,
        token_dropout=True,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny")
    EsmForMaskedLM(config).save_pretrained(folder)
    return weights.resolve(str(folder))


GIANTS = {"giant": 144_307, "large": 68_700, "p1": 1, "p300": 300, "p35": 35}


@pytest.fixture(scope="module")
def giants(tmp_path_factory):
    """Sequences of these lengths; the longest is nearly all X."""
    dice = np.random.default_rng(0)
    letters = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", np.uint8)
    sequences = {name: dice.choice(letters, length) for name, length in GIANTS.items()}
    sequences["giant"][dice.random(GIANTS["giant"]) < 0.99] = ord("X")
    folder = tmp_path_factory.mktemp("giants")
    content = b"".join(b">%s\n%s\n" % (name.encode(), letters.tobytes()) for name, letters in sequences.items())
    shards.shard(read_all([written(folder, content)]), 2, folder / "shards")
    return folder, {name: letters.tobytes() for name, letters in sequences.items()}


def test_giants_are_dealt_like_any_protein(giants):
    folder, sequences = giants
    table = pd.read_parquet(folder / "shards/records.parquet").set_index("id")
    assert table["length"].to_dict() == GIANTS
    # The giant costs more than all others together.
    assert table["shard"].to_dict() == {"giant": 0, "large": 1, "p300": 1, "p35": 1, "p1": 1}
    dealt = [protein.sequence for shard in "01" for protein in read_all([folder / f"shards/{shard}.fasta"])]
    assert dealt == [sequences[name] for name in ("giant", "large", "p300", "p35", "p1")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["giant", "large"])
def test_giants_are_embedded_like_any_protein(giants, tiny_model, tmp_path, name):
    _, sequences = giants
    company = {name: sequences[name], "p300": sequences["p300"], "p1": sequences["p1"]}
    path = written(tmp_path, b"".join(b">%s\n%s\n" % (key.encode(), value) for key, value in company.items()))
    alone = written(tmp_path, b">%s\n%s\n" % (name.encode(), sequences[name]), "alone.fasta")
    found = embed(tiny_model, path, tmp_path / "together", pooling=("mean", "residues"))
    assert found["mean"].shape == (3, 16)
    assert found["residues"].shape == (GIANTS[name] + 301, 16)
    assert np.isfinite(found["mean"]).all()
    assert np.isfinite(found["residues"]).all()
    np.testing.assert_array_equal(found["mean"][0], embed(tiny_model, alone, tmp_path / "alone")["mean"][0])
