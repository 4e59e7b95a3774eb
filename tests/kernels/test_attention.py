"""Choosing an attention kernel, and standard attention over packed sequences."""

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seqmill.errors import UserError
from seqmill.kernels import attention, packing, sdpa
from seqmill.kernels.interface import NotAvailable, check_result
from seqmill.kernels.needs import AttentionNeeds
from seqmill.kernels.packing import Packing

CPU = torch.device("cpu")
NEEDS = AttentionNeeds(4, 16)


def test_auto_warns_once_and_falls_back_on_the_cpu(caplog):
    with caplog.at_level(logging.WARNING):
        kernel = attention.choose("auto", NEEDS, CPU, torch.bfloat16)
    assert kernel.name == "sdpa"
    expected = "FlashAttention-2 not available (no CUDA GPU in use, running on cpu): using standard attention"
    assert [record.message for record in caplog.records] == [expected]


@pytest.mark.parametrize("waste", [1.0, 1.2, 2.0])
@pytest.mark.parametrize("scale", [None, 1.0])
def test_standard_attention_keeps_to_each_sequence(monkeypatch, waste, scale):
    similar = packing.similar
    monkeypatch.setattr(packing, "similar", lambda tokens, _: similar(tokens, waste))
    lengths = np.array([9, 8, 8, 5, 1])
    query, key, value = torch.randn(3, lengths.sum() + 4, 2, 8)
    own = Packing(torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32), 128, lengths)
    found = sdpa.attend(query, key, value, own, scale)
    start = 0
    for length in lengths:
        part = slice(start, start + length)
        q, k, v = (x[part].transpose(0, 1) for x in (query, key, value))
        weights = F.softmax(q @ k.transpose(1, 2) * (scale or 8**-0.5), dim=-1)
        assert torch.allclose(found[part], (weights @ v).transpose(0, 1), atol=1e-6)
        start += length


def test_similar_lengths_share_a_batch_within_the_waste():
    tokens = np.array([100, 99, 90, 50, 49, 10])
    assert packing.similar(tokens, 1.2) == [(0, 4), (4, 5), (5, 6)]
    assert packing.similar(np.array([7, 7, 5, 5]), 1.0) == [(0, 2), (2, 4)]


@pytest.mark.parametrize("name", ["torch", "triton", "flash-attn"])
def test_requested_kernel_that_cannot_run_is_an_error(name):
    with pytest.raises(UserError, match=f"attention '{name}' does not work here"):
        attention.choose(name, NEEDS, CPU, torch.bfloat16)


@pytest.mark.parametrize("requested", ["auto", "sdpa"])
def test_a_bias_that_no_kernel_has_is_not_ignored(requested):
    with pytest.raises(NotAvailable, match="no attention bias of the kind sinusoid"):
        attention.choose(requested, AttentionNeeds(4, 16, bias="sinusoid"), CPU, torch.float32)


def test_a_kernel_that_computes_something_else_is_not_available():
    expected = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    check_result("gelu", expected * 1.01, expected)
    with pytest.raises(NotAvailable, match=r"gelu computes wrong results on this GPU, relative error 0.03"):
        check_result("gelu", expected * 1.03, expected)
    with pytest.raises(NotAvailable, match="relative error nan"):
        check_result("gelu", expected * float("nan"), expected)
