"""T5's attention bias by distance (Raffel et al. 2020, section 2.1)."""

import math

import torch


def buckets(count: int, max_distance: int) -> torch.Tensor:
    """(2 R + 1,) int64, the bucket of each key - query from -R to R, on the CPU.

    R is the first distance of the last bucket: beyond it the bucket is the same to either side. The first half of the
    buckets is for keys at or before the query, the second for those behind it. Of each, one half holds a distance a
    bucket, the other ranges that grow with the logarithm, taken in float32 as in transformers' `T5Attention`: the exact
    one puts some distances elsewhere.

    Args:
        count: of the buckets, at least 4.
        max_distance: more than count // 4.
    """
    side = count // 2
    exact = side // 2
    distances = torch.arange(max_distance + 1, device="cpu")
    # Where the logarithm is not wanted it must not be infinite.
    ratio = distances.clamp(min=exact).float() / exact
    ranges = exact + (torch.log(ratio) / math.log(max_distance / exact) * (side - exact)).long()
    one_side = torch.where(distances < exact, distances, ranges.clamp(max=side - 1))
    one_side = one_side[: int((one_side == side - 1).nonzero()[0]) + 1]
    return torch.cat((one_side.flip(0), side + one_side[1:]))
