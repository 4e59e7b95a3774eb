"""What an attention kernel is: what it takes, what it supports, and how it says that it cannot run here."""

from dataclasses import dataclass
from typing import Protocol

import torch

from seqmill.kernels.biases import Bias
from seqmill.kernels.packing import Packing


class Attend(Protocol):
    """Computes attention within each packed sequence."""

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        packing: Packing,
        scale: float | None = None,
        bias: Bias | None = None,
    ) -> torch.Tensor:
        """All (T, heads, head_dim), the result too. Slots behind the last sequence (the padding) have no defined values.

        Args:
            scale: factor of the scores; None is 1 / sqrt(head_dim).
            bias: added to the scaled scores, in float32; of a kind that the kernel supports.
        """


@dataclass(frozen=True)
class Kernel:
    """An attention implementation.

    Attributes:
        name: how the configuration asks for it.
        version: what really runs, for logs and files.
        biases: the kinds of bias that it supports (`biases.Alibi.kind` and so on), None among them for none.
    """

    name: str
    version: str
    attend: Attend
    biases: frozenset[str | None] = frozenset({None})


class NotAvailable(Exception):
    """Why a kernel cannot run here, in words for the log."""


def check_result(what: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare what a kernel computed on this device with what was expected.

    Raises:
        NotAvailable: the relative L2 error is 2 % or more.
    """
    error = (found.float().cpu() - expected.float()).norm() / expected.float().norm()
    if not error < 0.02:
        raise NotAvailable(f"{what} computes wrong results on this GPU, relative error {error:.2g}")
