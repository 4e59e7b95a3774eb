"""The Triton kernels without a GPU, by Triton's interpreter, against PyTorch's operators."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

WORKFLOW = Path(__file__).resolve().parents[1] / "workflow"

COMPARE = """
import sys, torch
import numpy as np
from torch import nn
from seqmill import attention, kernels, operators

def check(step, limit, *arguments):
    copies = ([a.clone() if torch.is_tensor(a) else a for a in arguments] for _ in range(2))
    expected, found = (getattr(way, step)(*own) for way, own in zip((operators.PLAIN, kernels.FUSED), copies))
    assert found.dtype == expected.dtype and found.shape == expected.shape
    error = (found.float() - expected.float()).norm() / expected.float().norm()
    assert error < limit, f"{step} {arguments[0].dtype} {tuple(arguments[0].shape)}: {error}"

torch.manual_seed(0)
heads, head_dim = map(int, sys.argv[1:])
width = heads * head_dim
for dtype, limit in ((torch.float32, 1e-6), (torch.float16, 1e-3)):
    x = torch.randn(37, width).to(dtype)
    norm = nn.LayerNorm(width)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    check("layer_norm", limit, x, torch.randn(width), norm.to(dtype))
    angles = torch.randn(37, head_dim // 2)
    check("rotate", limit, torch.randn(37, 3, heads, head_dim).to(dtype), angles.cos(), angles.sin())
    check("gelu", limit, 4 * x)
    check("mean", limit, x, torch.tensor([0, 3, 20, 33], dtype=torch.int32))
lengths = np.array([70, 64, 5, 130])
packing = attention.Packing(torch.tensor([0, 70, 134, 139, 269], dtype=torch.int32), 130, lengths)
qkv = torch.randn(272, 3, 2, head_dim).half()
expected = attention.standard_attention(*qkv.float().unbind(1), packing)[:269]
error = (kernels.attend(*qkv.unbind(1), packing)[:269].float() - expected).norm() / expected.norm()
assert error < 1e-3, f"attention: {error}"

tails = torch.linspace(-6, 6, 5000).half()
assert (kernels.gelu(tails.clone()) - operators.gelu(tails)).abs().max() < 2e-3
"""


@pytest.mark.parametrize(("heads", "head_dim"), [(6, 32), (20, 16), (20, 24), (20, 64), (4, 128)])
def test_kernels_agree_with_pytorch(heads, head_dim):
    # In a process of its own, since Triton reads the variable when a kernel is defined.
    environment = {"TRITON_INTERPRET": "1", "PYTHONPATH": str(WORKFLOW), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", COMPARE, str(heads), str(head_dim)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


COMPILE = """
import sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from seqmill import kernels

capability, head_dim = map(int, sys.argv[1:])
pointers = ("query", "key", "value", "out")
sizes = dict(zip(("ROWS", "COLUMNS", "STAGES"), kernels.attention_tile(head_dim)), HEAD=head_dim, PADDED=head_dim)
signature = {name: "*bf16" for name in pointers} | {"cu_seqlens": "*i32", "scale": "fp32"}
signature |= {"stride": "i32", "heads": "i32", "blocks": "i32"} | {name: "constexpr" for name in sizes}
aligned = {(number,): [["tt.divisibility", 16]] for number in (0, 1, 2, 3, 4, 6)}
source = ASTSource(kernels._attend, signature, sizes, aligned)
print(triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4}).metadata.shared)
"""


# Shared memory that a block may have: A100, consumer cards of Ampere and Ada, H100 and H200.
@pytest.mark.parametrize(("capability", "limit_kib"), [(80, 163), (89, 99), (90, 227)])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_attention_compiles_and_fits_on_other_gpus(capability, limit_kib, head_dim):
    """Triton compiles for any GPU; that the tiles fit into its shared memory can be seen without one."""
    environment = {**os.environ, "PYTHONPATH": str(WORKFLOW), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", COMPILE, str(capability), str(head_dim)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= limit_kib * 1024
