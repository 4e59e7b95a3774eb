"""Long sequences of every family: in windows, cut off and refused, against states that other code computed."""

import numpy as np
import pandas as pd
import pytest
import torch
from embeddings import read_embeddings
from family_cases import Interruption, embed, everything, fail_at
from golden import worst
from small_run import SmallRun

from seqmill.errors import UserError
from seqmill.inputs.fasta import Record, read_all
from seqmill.inputs.sequences import Sequences
from seqmill.inputs.windows import Treatment

# Letters. For DNABERT's tokenizer of the tests, half as many tokens and more.
LENGTHS = [64, 9, 150, 30, 17, 2]
LONGEST, OVERLAP = 12, 4
WINDOWS = {"long": "window", "max_length": LONGEST, "overlap": OVERLAP}
CUT = {"long": "truncate", "max_length": LONGEST}


def tokens_of(case, record: Record) -> np.ndarray:
    """(tokens,) where the letters of each content token begin, and where the last one ends."""
    return np.append(case.model.tokenizer.tokens(Sequences([record])).starts(0, 1), len(record.sequence))


def expected_states(case, record: Record, treatment: Treatment) -> dict[str, torch.Tensor]:
    """What is to be stored of one sequence, from the reference's states of its windows, each by itself.

    A window is made of tokens: where they are several letters, the reference gets the letters of these.
    """
    tokenizer, bounds = case.model.tokenizer, tokens_of(case, record)
    pieces = treatment.pieces(np.array([len(bounds) - 1]))
    parts = []
    for start, stop, kept_start, kept_stop in zip(
        *(getattr(pieces, name).tolist() for name in ("start", "stop", "kept_start", "kept_stop")), strict=True
    ):
        states = of_tokens(case, record, bounds, start, stop)
        content = states[tokenizer.leading : len(states) - tokenizer.trailing]
        parts.append((states, content[kept_start - start : kept_stop - start]))
    residues = torch.cat([kept for _, kept in parts])
    before, behind = parts[0][0][: tokenizer.leading], parts[-1][0][len(parts[-1][0]) - tokenizer.trailing :]
    everything_kept = torch.cat([before, residues, behind])
    found = {
        "residues": residues,
        "mean": residues.mean(0, keepdim=True),
        "max": residues.amax(0, keepdim=True),
        "std": residues.std(0, correction=0, keepdim=True),
        "mean_all": everything_kept.mean(0, keepdim=True),
        "eos": behind[-1:],
    }
    return found | ({"cls": before[:1], "bos": before[:1]} if tokenizer.leading else {})


def of_tokens(case, record: Record, bounds: np.ndarray, start: int, stop: int) -> torch.Tensor:
    """The reference's states of some tokens of a sequence as a sequence of their own."""
    if case.family.name != "DNABERT":
        return case.reference(record.sequence[bounds[start] : bounds[stop]], 2)
    # Their letters alone may make other tokens.
    tokens = case.model.tokenizer.tokens(Sequences([record]))
    ids = np.empty(tokens.counts[0], case.model.tokenizer.dtype)
    tokens.write(0, 1, ids)
    return case.reference(b"", 2, [*ids[:1].tolist(), *ids[1 + start : 1 + stop].tolist(), *ids[-1:].tolist()])


@pytest.mark.parametrize("settings", [WINDOWS, CUT], ids=["window", "truncate"])
def test_the_whole_way(case, settings, tmp_path):
    """Of two shards in batches of a few windows; the last record is the first again."""
    fasta = case.fasta(tmp_path / "input.fasta", LENGTHS)
    fasta.write_text(fasta.read_text() + ">twin\n" + fasta.read_text().split("\n")[1] + "\n")
    run = SmallRun(tmp_path / "run")
    run.embed(case.folder, fasta, **everything(case), **settings)
    run.check()
    run.merge()
    found, treatment = read_embeddings(run.embeddings), Treatment.of(*settings.values(), *[None] * (4 - len(settings)))
    records = list(read_all([fasta], case.family.alphabet))
    expected = [expected_states(case, record, treatment) for record in records]
    per_token = torch.from_numpy(found["residues"]).split(np.diff(found["offsets"]).tolist())
    for name in expected[0]:
        values = per_token if name == "residues" else torch.from_numpy(found[name]).split(1)
        wanted = [states[name] for states in expected]
        if name == "std":
            # Of a sequence of one token it is zero.
            scale = max(float(value.norm()) for value in wanted)
            assert max(float((a - b).norm()) for a, b in zip(values, wanted, strict=True)) < 1e-5 * scale
        else:
            assert worst(list(values), wanted) < 1e-5
    index = pd.read_parquet(run.index)
    counts = [len(tokens_of(case, record)) - 1 for record in records]
    pieces = treatment.pieces(np.array(counts))
    assert max(counts) > LONGEST
    if settings is WINDOWS:
        assert index["windows"].tolist() == pieces.numbers.tolist() == found["windows"][:, 0].tolist()
        assert "embedded" not in index
    else:
        letters = [
            int(tokens_of(case, record)[min(count, LONGEST)]) for record, count in zip(records, counts, strict=True)
        ]
        assert index["embedded"].tolist() == letters == found["embedded"][:, 0].tolist()
    assert index["length"].tolist() == [*LENGTHS, LENGTHS[0]]
    if not case.model.tokenizer.single_letters:
        kept = pieces.kept_of_sequences.tolist()
        starts = [tokens_of(case, record)[:count] for record, count in zip(records, kept, strict=True)]
        assert found["token_starts"][:, 0].tolist() == np.concatenate(starts).tolist()


def test_an_interrupted_shard_resumes_to_the_same_bytes(case, tmp_path, monkeypatch):
    """Also where a batch begins in the middle of a sequence."""
    fasta = case.fasta(tmp_path / "x.fasta", LENGTHS)
    assert embed(case, fasta, tmp_path / "undisturbed", **WINDOWS) == 0
    for call in (2, 4):
        with monkeypatch.context() as patch:
            fail_at(patch, call, Interruption())
            with pytest.raises(Interruption):
                embed(case, fasta, tmp_path / f"{call}", **WINDOWS)
        assert embed(case, fasta, tmp_path / f"{call}", **WINDOWS) == 0
        assert (tmp_path / f"{call}/embeddings.h5").read_bytes() == (
            tmp_path / "undisturbed/embeddings.h5"
        ).read_bytes()


def test_other_batches_give_the_same_values(case, tmp_path):
    fasta = case.fasta(tmp_path / "x.fasta", LENGTHS)
    for size in (1, 10_000):
        assert embed(case, fasta, tmp_path / f"{size}", **WINDOWS, batch_size=size) == 0
    one, all_ = (read_embeddings(tmp_path / f"{size}/embeddings.h5") for size in (1, 10_000))
    for name in set(everything(case)["pooling"]) - {"std"}:
        assert worst([torch.from_numpy(one[name])], [torch.from_numpy(all_[name])]) < 1e-5


def test_long_ones_are_refused_by_name(case, tmp_path):
    fasta = case.fasta(tmp_path / "x.fasta", LENGTHS)
    with pytest.raises(UserError, match=r"'s[02]'.* (residues|tokens), and 12 is the most that sequences.long error"):
        embed(case, fasta, tmp_path / "out", long="error", max_length=LONGEST)
