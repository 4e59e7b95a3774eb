"""The Triton kernels without a GPU, by Triton's interpreter, against PyTorch's operators."""

import pytest
from interpreter import run

pytest.importorskip("triton")

COMPARE = """
import sys, torch
import numpy as np
from torch import nn
from seqmill.kernels import operators, sdpa, triton_attention, triton_operators
from seqmill.kernels.packing import Packing

def check(step, limit, *arguments):
    copies = ([a.clone() if torch.is_tensor(a) else a for a in arguments] for _ in range(2))
    ways = (operators.EAGER, triton_operators.FUSED)
    expected, found = (getattr(way, step)(*own) for way, own in zip(ways, copies))
    assert found.dtype == expected.dtype and found.shape == expected.shape
    error = (found.float() - expected.float()).norm() / expected.float().norm()
    assert error < limit, f"{step} {arguments[0].dtype} {tuple(arguments[0].shape)}: {error}"

def random_norm(kind, width, dtype, **how):
    norm = kind(width, **how)
    for parameter in norm.parameters():
        parameter.data.normal_()
    return norm.to(dtype).requires_grad_(False)

def compare(heads, head_dim):
    torch.manual_seed(0)
    width = heads * head_dim
    for dtype, limit in ((torch.float32, 1e-6), (torch.float16, 1e-3)):
        # Few rows, as each is a program, which the interpreter takes its time for.
        x, y = torch.randn(2, 9, width).to(dtype)
        norm = random_norm(nn.LayerNorm, width, dtype)
        plain = random_norm(nn.LayerNorm, width, dtype, bias=False)
        check("layer_norm", limit, x, norm, torch.randn(width))
        check("layer_norm", limit, x, norm)
        check("layer_norm", limit, x, plain)
        for last in (norm, plain):
            check("add_norm", limit, x, y, torch.randn(width).to(dtype), last)
        for stream in (x, 300 * x.float()):
            check("rms_norm", limit, stream, random_norm(nn.RMSNorm, width, dtype, eps=1e-6))
        qkv, angles = torch.randn(9, 3, heads, head_dim).to(dtype), torch.randn(9, head_dim // 2)
        check("rotate", limit, qkv, angles.cos(), angles.sin())
        for norms in ((plain, random_norm(nn.LayerNorm, width, dtype, bias=False)), (norm, plain)):
            check("norm_rotate", limit, qkv, *norms, angles.cos(), angles.sin())
        for activation in operators.ACTIVATIONS:
            check("gate", limit, 4 * torch.randn(9, 2 * width).to(dtype), activation)
        x = torch.randn(37, width).to(dtype)
        check("gelu", limit, 4 * x)
        starts = torch.tensor([0, 3, 20, 33], dtype=torch.int32)
        for before, behind in ((1, 1), (0, 1), (0, 0)):
            check("mean", limit, x, starts[:-1] + before, starts[1:] - behind)
    counts = np.array([70, 64, 5, 130])
    packing = Packing(torch.tensor([0, 70, 134, 139, 269], dtype=torch.int32), 130, counts)
    qkv = torch.randn(272, 3, 2, head_dim).half()
    for scale in (None, 0.5 * head_dim**-0.5):
        expected = sdpa.attend(*qkv.float().unbind(1), packing, scale)[:269]
        found = triton_attention.attend(*qkv.unbind(1), packing, scale)[:269].float()
        error = (found - expected).norm() / expected.norm()
        assert error < 1e-3, f"attention {head_dim} {scale}: {error}"

for sizes in sys.argv[1:]:
    compare(*map(int, sizes.split("x")))
tails = torch.linspace(-6, 6, 5000).half()
assert (triton_operators.gelu(tails.clone()) - operators.gelu(tails)).abs().max() < 2e-3
far = torch.cat((tails, torch.tensor([-6e4, -300, 300, 6e4]).half()))
for activation, exact in operators.ACTIVATIONS.items():
    found = triton_operators.gate(torch.cat((far, torch.ones_like(far)))[None], activation)[0]
    torch.testing.assert_close(found, exact(far), rtol=2e-3, atol=2e-3)
"""


def test_kernels_agree_with_pytorch():
    """Heads and their sizes of ESM-2's models, and 128, the largest that others have."""
    # One process for all sizes, as each would import torch and triton.
    run(COMPARE, "6x32", "20x16", "20x24", "20x64", "4x128", TRITON_INTERPRET="1")


COMPILE = """
import sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from seqmill.kernels import triton_attention

def shared_memory(capability, head_dim, kind):
    tile = triton_attention.attention_tile(head_dim)
    kernel = triton_attention._attend
    types = dict.fromkeys(("query", "key", "value", "out"), "*bf16") | {"cu_seqlens": "*i32", "scale": "fp32"}
    types |= dict.fromkeys(("stride", "heads", "blocks"), "i32")
    if kind is not None:
        types["numbers"] = "*fp32"
    if kind == "distance table":
        types["reach"] = "i32"
    sizes = {"HEAD": head_dim, "PADDED": head_dim, "KIND": kind, "ROWS": tile.rows, "COLUMNS": tile.columns}
    sizes["STAGES"] = tile.stages
    constants = {name: sizes.get(name) for name in kernel.arg_names if name not in types}
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    aligned = [name for name in kernel.arg_names if types.get(name, "").startswith("*") or name == "stride"]
    hints = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    source = ASTSource(kernel, signature, constants, hints)
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options={"num_warps": tile.warps}).metadata.shared

for capability in map(int, sys.argv[1:]):
    for kind in (None, "alibi", "distance table"):
        for head_dim in (64, 128):
            print(capability, shared_memory(capability, head_dim, kind))
"""
# KiB of shared memory that a block may have: A100, consumer cards of Ampere and Ada, H100 and H200.
LIMITS = {"80": 163, "89": 99, "90": 227}


def test_attention_compiles_and_fits_on_other_gpus():
    """Triton compiles for any GPU; that the tiles fit into its shared memory can be seen without one."""
    found = [line.split() for line in run(COMPILE, *LIMITS).splitlines()]
    assert len(found) == 6 * len(LIMITS)
    for capability, shared in found:
        assert int(shared) <= LIMITS[capability] * 1024, capability
