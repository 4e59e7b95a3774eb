"""What a family asks of the kernels; imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AttentionNeeds:
    """What a family asks of an attention kernel.

    Attributes:
        heads, head_dim: of queries, keys and values.
        scale: factor of the scores; None is 1 / sqrt(head_dim).
        bias: the kind of bias (`kind` in `biases.py`), None for none. Known when a kernel is compiled, so that who
            needs none pays nothing.
    """

    heads: int
    head_dim: int
    scale: float | None = None
    bias: str | None = None
