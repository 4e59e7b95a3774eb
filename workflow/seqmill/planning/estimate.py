"""What a kind of device makes of the shards of a run, and how long the steps around them take. Imports no torch."""

import heapq
from dataclasses import dataclass

from seqmill.outputs.datasets import Dataset
from seqmill.planning.devices import Device
from seqmill.planning.earlier import BYTES
from seqmill.planning.outline import Outline
from seqmill.planning.rates import RATES, Work
from seqmill.planning.workload import Workload

# Results that one job writes, at the pace of a good disk; slower ones make storing every residue's state take longer.
WRITTEN_PER_S = 0.8e9
# The steps without a GPU, on one core: sharding a record; checking and merging one, and the bytes of its results. With the
# following, 14 s of 14 and 30 of 30 that two runs of one GPU took besides embedding (benchmarks/results/2026-11-26_2xh100_gpus.json).
SHARD_S, MERGE_S, MERGED_PER_S = 8e-6, 4e-6, 0.75e9
# Of Snakemake and the processes that it starts.
STEPS_S = 9.0
# An embed job reads its sequences before anything else, each in so many seconds.
READ_S = 1.5e-6
# Tokens of a batch where it is left to seqmill.
BATCH_TOKENS, CPU_BATCH_TOKENS = 32_768, 2_048
# CUDA's context, and kernels.
CONTEXT_BYTES = 0.8 * 2**30
# What a batch may fill of a card, as the engine has it.
USABLE_SHARE = 0.9


@dataclass(frozen=True)
class Estimate:
    """What a kind of device makes of a run.

    Attributes:
        device: the device.
        busy_s: seconds of all jobs together.
        wall_s: from the first job's start to the last one's end.
        batch_tokens: of the largest batch: as configured or chosen, or that of the longest sequence.
        peak_bytes: of a card's memory; None on CPUs.
        fits: whether that is what the card has.
    """

    device: Device
    busy_s: float
    wall_s: float
    batch_tokens: int
    peak_bytes: float | None
    fits: bool


def of(
    device: Device,
    made: Workload,
    stored: list[Dataset],
    model: Outline,
    depth: int,
    longest: int,
    batch: int | None = None,
    written_per_s: float = WRITTEN_PER_S,
) -> Estimate:
    """What a device makes of shards.

    Args:
        stored: the datasets of their files.
        depth: layers that are computed.
        longest: tokens of the longest piece.
        batch: tokens of a batch; None where that is left to seqmill.
        written_per_s: bytes that one job writes in a second, while the others write.
    """
    itemsize = BYTES[device.dtype]
    row_bytes = {per: sum(d.row_bytes for d in stored if d.is_per_token == per) for per in (False, True)}
    seconds = []
    for tokens, squares, sequences in zip(made.tokens, made.squares, made.sequences, strict=True):
        work = Work.summed(model.config, tokens, squares, depth, itemsize)
        written = sequences * row_bytes[False] + tokens * row_bytes[True]
        seconds.append(device.start_s + sequences * READ_S + max(device.speed.seconds(work), written / written_per_s))
    wall = _makespan(seconds, device.at_once)
    if device.card is None:
        return Estimate(device, sum(seconds), wall, max(batch or CPU_BATCH_TOKENS, longest), None, True)
    numbers = model.config.matrices / model.config.width + 4 * model.config.width
    token_bytes = itemsize * RATES["gpu"]["activations"] * numbers + 2 * row_bytes[True]
    fixed = itemsize * model.config.parameter_count + CONTEXT_BYTES
    usable = USABLE_SHARE * device.card.memory_bytes
    batch = max(batch or int(min(BATCH_TOKENS, max((usable - fixed) / token_bytes, 0))), longest)
    peak = fixed + batch * token_bytes
    return Estimate(device, sum(seconds), wall, batch, peak, peak <= usable)


def other_steps(records: int, merged_bytes: float) -> dict[str, float]:
    """Seconds of the steps besides embedding, by their names, which follow one another.

    Args:
        merged_bytes: of the merged embeddings.h5.
    """
    merge = records * MERGE_S + merged_bytes / MERGED_PER_S
    return {"Snakemake and starts": STEPS_S, "shard": records * SHARD_S, "check and merge": merge}


def _makespan(seconds: list[float], at_once: int) -> float:
    """When the last of some jobs ends, of which so many run at once, in their order."""
    ends = [0.0] * max(at_once, 1)
    for taken in seconds:
        heapq.heappush(ends, heapq.heappop(ends) + taken)
    return max(ends)
