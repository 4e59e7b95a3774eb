"""What families add to the attention scores by the distance of query and key.

A kernel names the kinds it supports (`interface.Kernel.biases`), a family the one it needs (`needs.AttentionNeeds.bias`).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch


@dataclass(frozen=True, eq=False)
class Alibi:
    """Adds -slope x |key - query|: attention with linear biases (Press et al. 2022, arXiv:2108.12409), both directions.

    Attributes:
        slopes: (heads,) float32, on the device of the queries.
    """

    kind: ClassVar[str] = "alibi"
    slopes: torch.Tensor

    def dense(self, query_places: torch.Tensor, key_places: torch.Tensor) -> torch.Tensor:
        """(heads, Q, K) float32, what is added to the scores of queries and keys at these places in a sequence."""
        distances = (key_places - query_places[:, None]).abs()
        return -self.slopes[:, None, None] * distances


@dataclass(frozen=True, eq=False)
class DistanceTable:
    """Adds a number per head and signed distance, the last one of each side from there on, as T5's buckets do.

    Attributes:
        table: (heads, 2 reach + 1) float32, on the device of the queries; the key that lies d tokens behind its query
            takes entry reach + d.
    """

    kind: ClassVar[str] = "distance table"
    table: torch.Tensor

    @property
    def reach(self) -> int:
        """The distance from which on the number no longer changes."""
        return self.table.shape[1] // 2

    def dense(self, query_places: torch.Tensor, key_places: torch.Tensor) -> torch.Tensor:
        """As `Alibi.dense`."""
        distances = (key_places - query_places[:, None]).clamp(-self.reach, self.reach)
        return self.table[:, distances + self.reach]


Bias = Alibi | DistanceTable


def alibi_slopes(heads: int) -> torch.Tensor:
    """The slopes that ALiBi gives to so many heads, steepest first: (heads,) float32 on the CPU.

    A power of two p of them is 2^(-8 k / p) for k = 1 to p. Other numbers of heads take those of the power of two below,
    and then every second one of the power above (Press et al. 2022, in their code).
    """
    power = 1 << heads.bit_length() - 1
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    slopes += [2 ** (-8 * k / (2 * power)) for k in range(1, 2 * (heads - power), 2)]
    return torch.tensor(slopes, dtype=torch.float32, device="cpu")


def example(kind: str | None, heads: int, device: torch.device) -> Bias | None:
    """A bias of a kind, always the same, for trying kernels out and timing them.

    Its table ends close by, so that short sequences have what lies beyond.
    """
    if kind is None:
        return None
    if kind == Alibi.kind:
        return Alibi(alibi_slopes(heads).to(device))
    if kind == DistanceTable.kind:
        generator = torch.Generator().manual_seed(0)
        return DistanceTable(torch.randn((heads, 17), generator=generator).to(device))
    raise ValueError(f"no attention bias of the kind {kind}")
