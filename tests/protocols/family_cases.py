"""Every family with a small checkpoint, as the tests of this folder want it. A new family is one more entry in CASES."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import t5_models
import torch
import toy_family
from common import load_model
from errors import reference_model

from seqmill.engine.job import Job
from seqmill.engine.pipeline import Pipeline
from seqmill.inputs.fasta import Record
from seqmill.models import hub
from seqmill.models.esm2 import config as esm2
from seqmill.models.esm2 import family as esm2_family
from seqmill.models.family import Family, Model
from seqmill.models.t5 import family as t5_family
from seqmill.options import Settings
from seqmill.outputs.representations import REPRESENTATIONS

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """A family with a small checkpoint.

    Attributes:
        reference: states (T, width) of a sequence by itself and of its special tokens, computed by other code.
        other: a sequence that is not of its alphabet.
    """

    family: Family
    folder: Path
    model: Model
    reference: Callable[[bytes, int], torch.Tensor]
    other: bytes

    def records(self, lengths: list[int], seed: int = 0) -> list[Record]:
        """Random sequences of every letter of the alphabet."""
        letters, random = np.frombuffer(self.family.alphabet.letters, np.uint8), np.random.default_rng(seed)
        return [Record(f"s{n}", random.choice(letters, length).tobytes(), None, 0) for n, length in enumerate(lengths)]

    def fasta(self, path: Path, lengths: list[int], seed: int = 0) -> Path:
        records = self.records(lengths, seed)
        path.write_bytes(b"".join(b">%s\n%s\n" % (record.id.encode(), record.sequence) for record in records))
        return path


def esm2_case(folder: Path) -> Case:
    from transformers import EsmConfig, EsmForMaskedLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
    config = EsmConfig(
        vocab_size=33, pad_token_id=1, mask_token_id=32, position_embedding_type="rotary", token_dropout=True, **sizes
    )
    EsmForMaskedLM(config).save_pretrained(folder)
    transformers = reference_model(str(folder), CPU)

    @torch.inference_mode()
    def reference(sequence: bytes, layer: int) -> torch.Tensor:
        ids = torch.tensor([[esm2.TOKENS.index(token) for token in ("<cls>", *sequence.decode(), "<eos>")]])
        output = transformers(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
        return output.hidden_states[layer][0]

    return Case(esm2_family.FAMILY, folder, load(folder), reference, b"ACGT" * 10)


def t5_case(sizes: dict[str, Any], folder: Path) -> Case:
    t5_models.write(folder, **sizes)
    return Case(t5_family.FAMILY, folder, load(folder), t5_models.reference(folder), b"ACGT" * 10)


def toy_case(folder: Path) -> Case:
    toy_family.write(folder)
    model = load(folder)
    return Case(
        toy_family.FAMILY,
        folder,
        model,
        lambda sequence, layer: toy_family.reference(model, sequence, layer),
        b"HHMKPP",
    )


def load(folder: Path) -> Model:
    return load_model(folder, torch.float32, CPU, "sdpa")


CASES = {
    "ESM-2": esm2_case,
    "ProtT5": partial(t5_case, t5_models.PROTT5),
    "Ankh": partial(t5_case, t5_models.ANKH),
    "toy": toy_case,
}


def embed(case: Case, fasta: Path, folder: Path, **settings) -> int:
    """A job on the CPU; the exit status."""
    chosen = {"device": "cpu", "dataloader_workers": 0, "pooling": tuple(REPRESENTATIONS), "batch_size": 40, **settings}
    return Job(fasta, folder, hub.resolve(str(case.folder)), Settings(**chosen), "", time.perf_counter()).run()


class Interruption(BaseException):
    """Something that nobody catches."""


def fail_at(patch: pytest.MonkeyPatch, call: int, error: BaseException) -> None:
    """Let the pipeline's `submit` of the given call (from 1) raise an error, whatever the model."""
    submit, calls = Pipeline.submit, itertools.count(1)

    def failing(pipeline, batch):
        if next(calls) == call:
            pipeline.current = batch
            raise error
        return submit(pipeline, batch)

    patch.setattr(Pipeline, "submit", failing)
