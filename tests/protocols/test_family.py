"""What holds for every family: recognition, tokens, numerics of packing, and the way from a FASTA to merged results."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import toy_family
from embeddings import read_embeddings
from errors import packed_states
from family_cases import CPU, Interruption, embed, everything, fail_at
from golden import worst
from safetensors.torch import save_file
from small_run import SmallRun

from seqmill.engine.batching import PackedBatches
from seqmill.engine.pipeline import Pipeline
from seqmill.engine.task import Task, read_sequences
from seqmill.errors import UserError
from seqmill.inputs.fasta import Record, read_all, read_records
from seqmill.inputs.sequences import Sequences
from seqmill.inputs.windows import Treatment
from seqmill.models import hub, registry
from seqmill.models.family import flops
from seqmill.models.source import Source
from seqmill.outputs.datasets import resolve
from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.planning import config as configuration
from seqmill.settings import Settings

LENGTHS = [9, 1, 30, 30, 17, 2, 64, 30]


def states(model, records: list[Record], name: str = "residues", layer: int = -1, max_tokens: int = 70):
    return packed_states(model, Sequences(records), CPU, max_tokens, layer, name)


def turned(case, record: Record) -> Record:
    """The record beginning elsewhere in its sequence, with as many tokens, so that all batches stay as they are."""
    sequence = record.sequence
    others = [replace(record, sequence=sequence[n:] + sequence[:n]) for n in range(len(sequence))]
    counts = [case.model.tokenizer.tokens(Sequences([other])).counts[0] for other in others]
    return others[counts.index(counts[0], 1)]


# Recognition


def test_a_checkpoint_is_recognised(case):
    source = Source.of(hub.resolve(str(case.folder)))
    assert source.family is case.family
    assert source.config == case.model.config


def test_parameters_are_counted_before_loading(case):
    assert case.model.config.parameter_count == sum(parameter.numel() for parameter in case.model.parameters())


def test_planning_knows_the_alphabet(case):
    config = configuration.check(
        {"fasta": "x.fasta", "model": {"name": str(case.folder)}, "sequences": {"invalid": "replace"}}
    )
    expected = "replace" if case.family.name == "ESM-2" else ["replace", "--family", case.family.name]
    assert configuration.shard_flags(config) == expected
    assert configuration.result_flags(config) == f"--dtype auto --layers -1 --pooling {' '.join(case.family.pooling)}"


def test_sequences_of_another_kind_are_refused(case, tmp_path):
    (tmp_path / "x.fasta").write_bytes(b">x\n" + case.other + b"\n")
    with pytest.raises(UserError, match="record 'x' looks like"):
        list(read_records(tmp_path / "x.fasta", case.family.alphabet))
    (tmp_path / "x.fasta").write_bytes(b">x\n" + case.family.alphabet.letters + b"1\n")
    with pytest.raises(UserError, match=f"which is not {case.family.alphabet.member}"):
        list(read_records(tmp_path / "x.fasta", case.family.alphabet))
    (record,) = read_records(tmp_path / "x.fasta", case.family.alphabet, "replace")
    assert record.sequence == case.family.alphabet.letters + case.family.alphabet.replacement
    assert record.replaced == 1


# Tokens


def test_counts_are_those_of_the_encoded_sequences(case):
    sequences, tokenizer = Sequences(case.records(LENGTHS)), case.model.tokenizer
    tokens = tokenizer.tokens(sequences)
    assert tokens.counts.dtype == np.int64
    for index, count in enumerate(tokens.counts.tolist()):
        out = np.full(count, tokenizer.padding, tokenizer.dtype)
        tokens.write(index, index + 1, out)
        assert tokenizer.padding not in out
        assert count > tokenizer.leading + tokenizer.trailing


def test_tokens_know_where_their_letters_begin(case):
    sequences, tokenizer = Sequences(case.records(LENGTHS)), case.model.tokenizer
    tokens = tokenizer.tokens(sequences)
    special = tokenizer.leading + tokenizer.trailing
    starts = tokens.starts(1, 4)
    assert (starts.dtype, len(starts)) == (np.int32, (tokens.counts[1:4] - special).sum())
    for index, count in enumerate((tokens.counts - special).tolist()):
        own, length = tokens.starts(index, index + 1), int(np.diff(sequences.offsets)[index])
        assert (own[0], len(own)) == (0, count)
        assert (np.diff([*own, length]) == 1).all() if tokenizer.single_letters else (np.diff([*own, length]) > 0).all()


def test_a_batch_is_its_sequences_one_after_the_other(case):
    sequences, tokenizer = Sequences(case.records(LENGTHS)), case.model.tokenizer
    tokens = tokenizer.tokens(sequences)
    (whole,) = PackedBatches(sequences, tokens, tokenizer, 1_000, fill=True)
    alone = [batch.token_ids for batch in PackedBatches(sequences, tokens, tokenizer, 1, fill=False)]
    padding = torch.full((1_000 - int(tokens.counts.sum()),), tokenizer.padding, dtype=alone[0].dtype)
    assert torch.equal(whole.token_ids, torch.cat([*alone, padding]))
    starts, ends = whole.cu_seqlens[:-1] + tokenizer.leading, whole.cu_seqlens[1:] - tokenizer.trailing
    content = torch.cat([torch.arange(*bounds) for bounds in zip(starts.tolist(), ends.tolist(), strict=True)])
    assert torch.equal(whole.content(), content.int())
    assert whole.content_counts.sum() == len(content)


# Numerics


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_packed_equals_the_reference_one_by_one(case, layer):
    records, tokenizer = case.records(LENGTHS), case.model.tokenizer
    expected = [case.reference(record.sequence, layer) for record in records]
    ends = [len(rows) - tokenizer.trailing for rows in expected]
    content = [rows[tokenizer.leading : end] for rows, end in zip(expected, ends, strict=True)]
    assert worst(states(case.model, records, layer=layer), content) < 1e-5
    means = [rows.mean(0, keepdim=True) for rows in content]
    assert worst(states(case.model, records, "mean", layer), means) < 1e-5
    all_means = [rows.mean(0, keepdim=True) for rows in expected]
    assert worst(states(case.model, records, "mean_all", layer), all_means) < 1e-5
    assert worst(states(case.model, records, "max", layer), [rows.amax(0, keepdim=True) for rows in content]) < 1e-5
    # float64: of a sequence of one letter it is zero.
    spreads = [rows.double().std(0, correction=0, keepdim=True) for rows in content]
    found = states(case.model, records, "std", layer)
    assert max(float((a - b).norm()) for a, b in zip(found, spreads, strict=True)) < 1e-5 * float(spreads[6].norm())
    for name, rows in (("cls", slice(0, 1)), ("bos", slice(0, 1)), ("eos", slice(-1, None))):
        assert worst(states(case.model, records, name, layer), [every[rows] for every in expected]) < 1e-5


def test_the_order_of_the_input_changes_no_bit(case):
    records = case.records(LENGTHS)
    vectors = {record.id: value for record, value in zip(records, states(case.model, records), strict=True)}
    for record, value in zip(records[::-1], states(case.model, records[::-1]), strict=True):
        # Equal lengths change places, so what is compared is bits under another neighbour.
        assert torch.equal(value, vectors[record.id])


def test_a_neighbour_is_never_seen(case):
    records = case.records(LENGTHS)
    changed = [*records[:6], turned(case, records[6]), records[7]]
    before, after = states(case.model, records), states(case.model, changed)
    assert before[6].shape == after[6].shape
    assert not torch.allclose(before[6], after[6])
    assert all(torch.equal(before[row], after[row]) for row in range(len(records)) if row != 6)


def test_special_tokens_in_the_wrong_place_would_be_noticed(case, monkeypatch):
    records = case.records(LENGTHS)
    good = states(case.model, records, "mean")
    submit = Pipeline.submit

    def shifted(pipeline, batch):
        return submit(pipeline, batch._replace(kept=batch.kept + torch.tensor([[0], [1], [1], [0]], dtype=torch.int32)))

    monkeypatch.setattr(Pipeline, "submit", shifted)
    assert worst(states(case.model, records, "mean"), good) > 1e-3


def test_operations_grow_with_tokens(case):
    one, two = (flops(case.model.config, np.array(counts)) for counts in ([10], [10, 10]))
    assert 0 < 2 * one == two


# From a FASTA to merged results


def test_the_whole_way(case, tmp_path):
    """Of two shards; the last record is the first again."""
    fasta = case.fasta(tmp_path / "input.fasta", LENGTHS)
    fasta.write_text(fasta.read_text() + ">twin\n" + fasta.read_text().split("\n")[1] + "\n")
    run = SmallRun(tmp_path / "run")
    run.embed(case.folder, fasta, **everything(case))
    assert run.check()["sequences"].sum() == len(LENGTHS)
    run.merge()
    found = read_embeddings(run.embeddings)
    records = list(read_all([fasta], case.family.alphabet))
    expected = states(case.model, records)
    assert found["lengths"].tolist() == [*LENGTHS, LENGTHS[0]]
    assert np.diff(found["offsets"]).tolist() == [len(rows) for rows in expected]
    assert worst([torch.from_numpy(found["residues"])], expected) < 1e-5
    for name in set(everything(case)["pooling"]) - {"residues", "std"}:
        assert worst([torch.from_numpy(found[name])], states(case.model, records, name)) < 1e-5
    if not case.model.tokenizer.single_letters:
        starts = [case.model.tokenizer.tokens(Sequences([record])).starts(0, 1) for record in records]
        assert found["token_starts"][:, 0].tolist() == np.concatenate(starts).tolist()
    assert pd.read_parquet(run.index)["duplicate_of"].tolist()[-1] == "s0"


def test_the_space_that_is_asked_for_is_what_values_take(case, tmp_path):
    fasta = case.fasta(tmp_path / "x.fasta", LENGTHS)
    text = fasta.read_text()
    fasta.write_text(text + ">twin\n" + text.split("\n")[1] + "\n")
    settings = {"pooling": ("mean", "residues"), "layers": (1, 2)}
    assert embed(case, fasta, tmp_path / "out", **settings) == 0
    source = Source.of(hub.resolve(str(case.folder)))
    sequences = read_sequences(fasta, source, Treatment(), Settings())
    tokens = source.tokenizer.tokens(sequences)
    task = Task.resolve(source, sequences, tokens, Settings(**settings), torch.float32, Treatment())
    with EmbeddingFile(tmp_path / "out/embeddings.h5") as file:
        assert task.bytes_to_store(0) == sum(extent.rows * extent.dataset.row_bytes for extent in file.extents.values())
    assert task.bytes_to_store(sequences.distinct) == 0


def test_an_interrupted_shard_resumes_to_the_same_bytes(case, tmp_path, monkeypatch):
    fasta = case.fasta(tmp_path / "x.fasta", LENGTHS)
    assert embed(case, fasta, tmp_path / "undisturbed") == 0
    with monkeypatch.context() as patch:
        fail_at(patch, 3, Interruption())
        with pytest.raises(Interruption):
            embed(case, fasta, tmp_path / "out")
    assert embed(case, fasta, tmp_path / "out") == 0
    meta = json.loads((tmp_path / "out/meta.json").read_text())
    assert 0 < meta["resumed_after"] < len(LENGTHS)
    assert (tmp_path / "out/embeddings.h5").read_bytes() == (tmp_path / "undisturbed/embeddings.h5").read_bytes()


def test_out_of_memory_is_diagnosed_in_letters_and_recommended_in_tokens(case, tmp_path, monkeypatch):
    fasta = case.fasta(tmp_path / "x.fasta", LENGTHS)
    with monkeypatch.context() as patch:
        fail_at(patch, 1, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB."))
        assert embed(case, fasta, tmp_path / "out") == 3
    found = json.loads((tmp_path / "out/oom.json").read_text())
    assert (found["longest_sequence"], found["batch_size"]) == (64, 40)
    assert found["model_bytes"] == 4 * case.model.config.parameter_count
    assert embed(case, fasta, tmp_path / "out", batch_size=20) == 0


def test_measuring_memory_leaves_no_trace(case):
    pipeline = Pipeline(case.model, CPU, resolve((1,), ("mean", "residues"), case.model.config.width, "float32"))
    pipeline.probe(16)
    assert (pipeline.current, pipeline.timing.batches) == (None, 0)


def test_another_architecture_is_refused_with_the_families_there_are(families, tmp_path):
    toy_family.write(tmp_path / "bert")
    save_file({"embeddings": torch.zeros(1)}, tmp_path / "bert/model.safetensors")
    with pytest.raises(UserError, match=r"is of type bert; seqmill supports ESM-2, .*the toy family checkpoints"):
        registry.recognise(hub.resolve(str(tmp_path / "bert")))
