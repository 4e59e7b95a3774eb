"""The Triton kernels without a GPU, by Triton's interpreter, against PyTorch's operators."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

WORKFLOW = Path(__file__).resolve().parents[1] / "workflow"

COMPARE = """
import sys, torch
from torch import nn
from seqmill import kernels, operators

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
tails = torch.linspace(-6, 6, 5000).half()
assert (kernels.gelu(tails.clone()) - operators.gelu(tails)).abs().max() < 2e-3
"""


@pytest.mark.parametrize(("heads", "head_dim"), [(6, 32), (20, 16), (20, 24), (20, 64)])
def test_kernels_agree_with_pytorch(heads, head_dim):
    # In a process of its own, since Triton reads the variable when a kernel is defined.
    environment = {"TRITON_INTERPRET": "1", "PYTHONPATH": str(WORKFLOW), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", COMPARE, str(heads), str(head_dim)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
