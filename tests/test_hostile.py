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
import zipfile
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from seqmill import fasta, files, weights
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
    "id": (b">a\nMKT\n>", b"b", "line 3: here are more than 20,000,000 characters of description or blank lines"),
    "description": (b">a\nMKT\n>b ", b"b", "line 3: here are more than 20,000,000 characters of description"),
    "no header": (b"", b"M", "line 1: a FASTA file starts with '>', this one with 'MMMM"),
    "zeros": (b"", b"\0", "is no text file"),
    "blank line": (b"", b" ", "line 1: here are more than 20,000,000 characters of description or blank lines"),
    "empty lines": (b">a\nMKT\n", b"\n", "line 20000003: here are more than 20,000,000 characters of description"),
}


@pytest.mark.parametrize(("start", "endless", "says"), BOMBS.values(), ids=BOMBS)
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
    """Half a megabyte that asks for two strings of 256 MB."""
    with zipfile.ZipFile(as_bin(folder, {}), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02X\0\0\0\x10" + b"a" * 2**28 + b".")
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
