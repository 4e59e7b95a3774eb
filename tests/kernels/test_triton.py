"""The Triton kernels without a GPU, by Triton's interpreter, against PyTorch's operators."""

import os
import subprocess
import sys

import pytest
from paths import REPOSITORY

pytest.importorskip("triton")

WORKFLOW = REPOSITORY / "workflow"

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

def compare(heads, head_dim):
    torch.manual_seed(0)
    width = heads * head_dim
    for dtype, limit in ((torch.float32, 1e-6), (torch.float16, 1e-3)):
        x = torch.randn(37, width).to(dtype)
        norm = nn.LayerNorm(width)
        norm.weight.data.normal_()
        norm.bias.data.normal_()
        check("layer_norm", limit, x, norm.to(dtype), torch.randn(width))
        check("layer_norm", limit, x, norm.to(dtype))
        angles = torch.randn(37, head_dim // 2)
        check("rotate", limit, torch.randn(37, 3, heads, head_dim).to(dtype), angles.cos(), angles.sin())
        check("gelu", limit, 4 * x)
        starts = torch.tensor([0, 3, 20, 33], dtype=torch.int32)
        for special in ((1, 1), (0, 1), (0, 0)):
            check("mean", limit, x, starts, *special)
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
"""


def run(program: str, *arguments: str, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(WORKFLOW), "CUDA_VISIBLE_DEVICES": "", **variables}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kernels_agree_with_pytorch():
    """Heads and their sizes of ESM-2's models, and 128, the largest that others have."""
    # In a process of its own, since Triton reads the variable when a kernel is defined; one for all sizes, as each would
    # import torch and triton.
    run(COMPARE, "6x32", "20x16", "20x24", "20x64", "4x128", TRITON_INTERPRET="1")


COMPILE = """
import sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from seqmill.kernels import triton_attention

def shared_memory(capability, head_dim):
    pointers = ("query", "key", "value", "out")
    tile = triton_attention.attention_tile(head_dim)
    sizes = dict(zip(("ROWS", "COLUMNS", "STAGES"), tile), HEAD=head_dim, PADDED=head_dim)
    signature = {name: "*bf16" for name in pointers} | {"cu_seqlens": "*i32", "scale": "fp32"}
    signature |= {"stride": "i32", "heads": "i32", "blocks": "i32"} | {name: "constexpr" for name in sizes}
    aligned = {(number,): [["tt.divisibility", 16]] for number in (0, 1, 2, 3, 4, 6)}
    source = ASTSource(triton_attention._attend, signature, sizes, aligned)
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options={"num_warps": 4}).metadata.shared

for capability in map(int, sys.argv[1:]):
    for head_dim in (64, 128):
        print(capability, shared_memory(capability, head_dim))
"""
# KiB of shared memory that a block may have: A100, consumer cards of Ampere and Ada, H100 and H200.
LIMITS = {"80": 163, "89": 99, "90": 227}


def test_attention_compiles_and_fits_on_other_gpus():
    """Triton compiles for any GPU; that the tiles fit into its shared memory can be seen without one."""
    found = [line.split() for line in run(COMPILE, *LIMITS).splitlines()]
    assert len(found) == 2 * len(LIMITS)
    for capability, shared in found:
        assert int(shared) <= LIMITS[capability] * 1024, capability
