"""Every family with a small checkpoint, as the tests of this folder want it. A new family is one more entry in CASES."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dnabert_reference
import numpy as np
import pytest
import small_run
import t5_models
import torch
import toy_family
from common import load_model
from errors import reference_model

from seqmill.engine.pipeline import Pipeline
from seqmill.inputs.fasta import Record
from seqmill.models.dnabert import family as dnabert_family
from seqmill.models.esm1 import family as esm1_family
from seqmill.models.esm2 import config as esm2
from seqmill.models.esm2 import family as esm2_family
from seqmill.models.esmc import config as esmc
from seqmill.models.esmc import family as esmc_family
from seqmill.models.family import Family, Model
from seqmill.models.t5 import family as t5_family
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


SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}


def write_esm(folder: Path, **options: Any) -> None:
    """A checkpoint of transformers' `EsmModel` with random weights."""
    from transformers import EsmConfig, EsmForMaskedLM

    torch.manual_seed(0)
    config = EsmConfig(vocab_size=33, pad_token_id=1, mask_token_id=32, token_dropout=True, **SIZES, **options)
    EsmForMaskedLM(config).save_pretrained(folder)


def states_of(transformers: torch.nn.Module, tokens: list[str]) -> Callable[[bytes, int], torch.Tensor]:
    """A model of transformers, as a reference."""

    @torch.inference_mode()
    def reference(sequence: bytes, layer: int) -> torch.Tensor:
        ids = torch.tensor([[tokens.index(token) for token in ("<cls>", *sequence.decode(), "<eos>")]])
        output = transformers(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
        return output.hidden_states[layer][0]

    return reference


def esm2_case(folder: Path) -> Case:
    write_esm(folder, position_embedding_type="rotary")
    reference = states_of(reference_model(str(folder), CPU), esm2.TOKENS)
    return Case(esm2_family.FAMILY, folder, load(folder), reference, b"ACGT" * 10)


def esm1_case(folder: Path, norm_before: bool) -> Case:
    from transformers import EsmModel

    # The longest sequences of these tests have 64 letters, and just fit.
    positions = {"position_embedding_type": "absolute", "max_position_embeddings": 68}
    write_esm(folder, emb_layer_norm_before=norm_before, **positions)
    reference = states_of(EsmModel.from_pretrained(folder, add_pooling_layer=False).eval(), esm2.TOKENS)
    return Case(esm1_family.FAMILY, folder, load(folder), reference, b"ACGT" * 10)


def esmc_case(folder: Path) -> Case:
    from transformers import EsmcConfig, EsmcForMaskedLM

    torch.manual_seed(0)
    model = EsmcForMaskedLM(EsmcConfig(**SIZES)).eval()
    model.save_pretrained(folder)
    return Case(esmc_family.FAMILY, folder, load(folder), states_of(model.esmc, esmc.TOKENS), b"ACGT" * 10)


def dnabert_case(folder: Path) -> Case:
    dnabert_reference.write(folder)
    reference = dnabert_reference.reference(folder)
    return Case(dnabert_family.FAMILY, folder, load(folder), reference, b"MKTAYIAKQRQISFVKSHFSRQ")


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
    "ESM-1b": partial(esm1_case, norm_before=True),
    "ESM-1v": partial(esm1_case, norm_before=False),
    "ESM-C": esmc_case,
    "DNABERT": dnabert_case,
    "ProtT5": partial(t5_case, t5_models.PROTT5),
    "Ankh": partial(t5_case, t5_models.ANKH),
    "toy": toy_case,
}


def offers(case: Case, name: str) -> bool:
    """Whether a family has what a representation needs."""
    needed = REPRESENTATIONS[name].needs
    return needed is None or bool(getattr(case.model.tokenizer, needed))


def everything(case: Case) -> dict[str, Any]:
    """What the jobs of these tests store, in several batches."""
    return {"pooling": tuple(name for name in REPRESENTATIONS if offers(case, name)), "batch_size": 40}


def embed(case: Case, fasta: Path, folder: Path, **settings) -> int:
    """A job on the CPU; the exit status."""
    return small_run.embed(case.folder, fasta, folder, **(everything(case) | settings))


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
