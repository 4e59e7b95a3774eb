"""Choosing an attention kernel, and standard attention over packed sequences."""

import logging
import re
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seqmill.errors import UserError
from seqmill.kernels import attention, biases, packing, sdpa
from seqmill.kernels.interface import Kernel, NotAvailable, check_result
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


@pytest.fixture
def kernels(monkeypatch) -> dict[str, Kernel]:
    """What there is to choose from, by name, as if on a GPU; a test leaves out what is not to be there."""
    there = {
        "flash-attn": Kernel("flash-attn", "flash-attn 2.8", sdpa.attend, frozenset({None, "alibi"})),
        "torch": Kernel("torch", "PyTorch built-in", sdpa.attend),
        "triton": Kernel("triton", "seqmill's Triton kernel", sdpa.attend, sdpa.KERNEL.biases),
    }

    def flash(name: str, *_) -> Kernel:
        if name not in there:
            raise NotAvailable(f"no {name}")
        return there[name]

    monkeypatch.setattr(attention, "_flash", flash)
    return there


@pytest.mark.parametrize(
    ("bias", "missing", "expected"),
    [
        (None, (), "torch"),
        (None, ("torch",), "flash-attn"),
        (None, ("torch", "flash-attn"), "sdpa"),
        ("alibi", (), "triton"),
        ("alibi", ("triton",), "flash-attn"),
        ("alibi", ("triton", "flash-attn"), "sdpa"),
        ("distance table", (), "triton"),
        ("distance table", ("triton",), "sdpa"),
    ],
)
def test_auto_takes_the_first_that_has_the_bias(kernels, bias, missing, expected, caplog):
    for name in missing:
        del kernels[name]
    with caplog.at_level(logging.INFO):
        found = attention.choose("auto", AttentionNeeds(4, 16, bias=bias), CPU, torch.float32)
    assert found.name == expected
    (message,) = (record.message for record in caplog.records)
    if expected == "sdpa":
        assert re.fullmatch(r"FlashAttention-2 not available \(.*\): using standard attention", message)
    else:
        assert message == f"FlashAttention-2: enabled ({found.version})"


def test_standard_attention_with_a_bias_says_what_was_missing(kernels, caplog):
    del kernels["flash-attn"], kernels["triton"]
    attention.choose("auto", AttentionNeeds(4, 16, bias="alibi"), CPU, torch.float32)
    reasons = "triton: no triton; flash-attn: no flash-attn"
    assert caplog.messages == [f"FlashAttention-2 not available ({reasons}): using standard attention"]


def test_a_kernel_asked_for_by_name_must_have_the_bias(kernels):
    words = "attention 'torch' does not work here (PyTorch built-in has no attention bias of the kind alibi)"
    with pytest.raises(UserError, match=re.escape(words)):
        attention.choose("torch", AttentionNeeds(4, 16, bias="alibi"), CPU, torch.float32)


@pytest.mark.parametrize("bias", ["alibi", "distance table"])
def test_a_kernel_that_ignores_the_bias_is_not_taken(kernels, bias):
    def ignores(query, key, value, packing, scale=None, bias=None):
        return sdpa.attend(query, key, value, packing, scale)

    kernels["triton"] = Kernel("triton", "seqmill's Triton kernel", ignores, sdpa.KERNEL.biases)
    with pytest.raises(UserError, match="it computes wrong results"):
        attention.choose("triton", AttentionNeeds(4, 16, bias=bias), CPU, torch.float32)


def test_flash_attn_gets_the_slopes(monkeypatch):
    """And nothing without a bias: versions before 2.4 do not know the argument."""
    given = []
    fake = types.ModuleType("flash_attn")
    fake.flash_attn_varlen_func = lambda *_, **options: given.append(options)
    monkeypatch.setitem(sys.modules, "flash_attn", fake)
    attend = attention._flash_attn()
    own = Packing(torch.tensor([0, 3], dtype=torch.int32), 3, np.array([3]))
    bias = biases.example("alibi", 2, CPU)
    for some in (None, bias):
        attend(*torch.zeros(3, 3, 2, 8), own, 0.5, some)
    assert given == [{"softmax_scale": 0.5}, {"softmax_scale": 0.5, "alibi_slopes": bias.slopes}]


def test_a_kernel_that_computes_something_else_is_not_available():
    expected = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    check_result("gelu", expected * 1.01, expected)
    with pytest.raises(NotAvailable, match=r"gelu computes wrong results on this GPU, relative error 0.03"):
        check_result("gelu", expected * 1.03, expected)
    with pytest.raises(NotAvailable, match="relative error nan"):
        check_result("gelu", expected * float("nan"), expected)
