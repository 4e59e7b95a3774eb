"""The tables of rotary position embedding (Su et al. 2021, arXiv:2104.09864)."""

import torch


def inverse_frequencies(head_dim: int, base: float) -> torch.Tensor:
    """(head_dim / 2,) float32 on the CPU, the angle of each pair of channels from one position to the next.

    Always float32: in half precision the rotation angles of distant positions are wrong. Weights come in their dtype, so
    a model that keeps these is moved between devices only. Made on the CPU, because under the meta device they would have
    no values, and in float64: a float32 power can come out one rounding apart from call to call, which 1,000 positions on
    is 3e-5.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu") / head_dim
    return (1.0 / base**exponents).float()


def tables(positions: torch.Tensor, frequencies: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines for `operators.rotate`, each (T, head_dim / 2) float32.

    Args:
        positions: (T,) of each token in its sequence.
        frequencies: as `inverse_frequencies` gives them, on the same device.
    """
    angles = positions[:, None].float() * frequencies
    return angles.cos(), angles.sin()
