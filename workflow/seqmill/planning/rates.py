"""How long a model takes on a device: one model of the time for all families, fitted to what was measured.

    seconds = (products + attention x a + passes x t) / matmul + moved x m / copy

The numbers a, t and m, and a share of `matmul`, are in rates.json, which benchmarks/rates.py writes from benchmarks/results.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqmill.files import read_json
from seqmill.models.family import Config

FILE = Path(__file__).with_name("rates.json")
RATES: dict[str, Any] = read_json(FILE)
MEASURED_CARDS: dict[str, dict[str, float]] = RATES["cards"]


@dataclass(frozen=True)
class Work:
    """What some sequences ask of a device.

    Attributes:
        products, attention: floating-point operations of matrix products with weights, and of attention.
        moved: bytes that the steps between products read and write.
        passes: tokens times layers.
    """

    products: float
    attention: float
    moved: float
    passes: float

    @classmethod
    def of(cls, config: Config, tokens: np.ndarray, layers: int, itemsize: int) -> "Work":
        """Of sequences of so many tokens.

        Args:
            tokens: (S,) special ones included.
            layers: that are computed, from the first.
            itemsize: bytes of a number in the dtype that is computed in.
        """
        counts = np.asarray(tokens, np.float64)
        return cls.summed(config, float(counts.sum()), float((counts**2).sum()), layers, itemsize)

    @classmethod
    def summed(cls, config: Config, tokens: float, squares: float, layers: int, itemsize: int) -> "Work":
        """As `of`, from the sum of the tokens and that of their squares."""
        attended = config.attention.heads * config.attention.head_dim
        passes = tokens * layers
        # Each number in and out of a layer's products is written by one step and read by the next.
        numbers = config.matrices / config.width + 4 * config.width
        return cls(
            2.0 * config.matrices * passes, 4.0 * attended * squares * layers, itemsize * numbers * passes, passes
        )


@dataclass(frozen=True)
class Speed:
    """What a device reaches.

    Attributes:
        matmul: operations per second of matrix products.
        copy: bytes per second, read and written.
        shares: "products", "attention", "moved" and "passes" to what each costs, see the module.
        times: what all is multiplied by, as where kernels are not compiled.
    """

    matmul: float
    copy: float
    shares: dict[str, float]
    times: float = 1.0

    def seconds(self, work: Work) -> float:
        """Of some work, without the start."""
        shares = self.shares
        operations = work.products * shares["products"] + work.attention * shares["attention"]
        operations += work.passes * shares["passes"]
        return self.times * (operations / self.matmul + work.moved * shares["moved"] / self.copy)
