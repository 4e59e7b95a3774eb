"""One value of a long sequence from those of its pieces, in float64: each function takes the values of P pieces.

Args of each:
    values: (P, D), or (P, 2 D) for two of each.
    counts: (P,) how many tokens of each piece count.
    begins: (S,) which piece is the first of each sequence.

Each returns (S, D) float64, or the dtype of the values where nothing is computed.
"""

import numpy as np


def mean(values: np.ndarray, counts: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """The mean of all tokens from the means of pieces."""
    weights = counts[:, None].astype(np.float64)
    return np.add.reduceat(values * weights, begins) / np.add.reduceat(weights, begins)


def maximum(values: np.ndarray, _: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """The largest value from the largest of pieces."""
    return np.maximum.reduceat(values, begins)


def standard_deviation(values: np.ndarray, counts: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """The standard deviation of all tokens from mean and variance of pieces, side by side.

    By the law of total variance: the variances of pieces, and that of their means.
    """
    means, variances = np.split(values.astype(np.float64), 2, axis=1)
    overall = mean(means, counts, begins)
    sizes = np.diff(np.append(begins, len(values)))
    around = means - np.repeat(overall, sizes, axis=0)
    return np.sqrt(mean(variances + around**2, counts, begins))


def first(values: np.ndarray, _: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """What the first piece has."""
    return values[begins]


def last(values: np.ndarray, _: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """What the last piece has."""
    return values[np.append(begins[1:], len(values)) - 1]
