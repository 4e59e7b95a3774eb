"""What a plan takes a run's devices for: GPUs of a kind, or this machine's CPUs; how fast, how many at once, by what evidence."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqmill.models.family import Config
from seqmill.planning import calibration, earlier, reuse
from seqmill.planning.cards import Card
from seqmill.planning.earlier import Run
from seqmill.planning.outline import Outline
from seqmill.planning.rates import RATES, Speed, Work

# Of a process on a CPU until its first batch: PyTorch's import, mostly.
CPU_START_S = 8.0
SHEET_ERROR = "off by a third, or more on cards with a power limit"


@dataclass(frozen=True)
class Device:
    """What one shard is computed on.

    Attributes:
        name: for people.
        card: None for CPUs.
        dtype: that is computed in.
        speed: of one job.
        start_s: seconds of a job without its batches.
        at_once: jobs that run at the same time.
        basis: where these figures are from, and what they are worth, in words.
    """

    name: str
    card: Card | None
    dtype: str
    speed: Speed
    start_s: float
    at_once: int
    basis: str


def on_card(card: Card, config: dict[str, Any], model: Outline, results: Path, gpus: int) -> Device:
    """GPUs of a kind, so many at once.

    Args:
        config: complete, see `config.check`.
        results: the folder of a run, whose finished shards count more than what was measured elsewhere.
    """
    dtype, rates = config["model"]["dtype"], RATES["gpu"]
    if dtype == "auto":
        dtype = model.config.half if card.has_bfloat16 else "float16"
    speed = Speed(card.matmul(dtype), card.copy, rates["shares"], _slower(config, rates))
    start = rates["start"]["base_s"] + rates["start"]["per_GB_s"] * model.file_bytes / 1e9
    found = earlier.find(earlier.folders(results, reuse.earlier_results(config)), model, dtype)
    if runs := [run for run in found if card.name in run.device]:
        speed, start, basis = _learned(runs, speed, model, dtype, "on such a card")
    elif card.is_measured and dtype != "float32":
        basis = f"from measured rates of the {card.name}; of {rates['runs']} measured runs, each predicted from those of other "
        basis += f"models, the worst was off by {rates['worst_error']:.0%}"
    else:
        basis = f"from the data sheet of the {card.name}, not measured: {SHEET_ERROR}"
    return Device(card.name, card, dtype, speed, start, max(gpus, 1), basis)


def on_cpus(config: dict[str, Any], model: Outline, results: Path, shards: int) -> Device:
    """This machine's CPUs, shared by the shards' jobs as Snakemake shares them. See `on_card`."""
    dtype, cpus = config["model"]["dtype"], calibration.cpus()
    dtype = "float32" if dtype == "auto" else dtype
    threads = max(cpus // shards, 1)
    at_once = min(max(cpus // threads, 1), shards)
    matmul, copy = calibration.measured()
    share, rates = threads / cpus, RATES["cpu"]
    speed = Speed(matmul * share, copy * share, rates["shares"])
    found = earlier.find(earlier.folders(results, reuse.earlier_results(config)), model, dtype)
    if runs := [run for run in found if run.threads == threads]:
        # Of another time, with other neighbours: only what took how long counts, not what the CPUs can do now.
        speed, start, basis = _learned(runs, speed, model, dtype, "on such CPUs")
    else:
        start = CPU_START_S
        basis = "from a second of matrix products on this machine as busy as it is now; expect it to be off by a half"
    return Device(f"{cpus} CPUs", None, dtype, speed, start, at_once, basis)


def _slower(config: dict[str, Any], rates: dict[str, Any]) -> float:
    """How many times as long it takes with the kernels that the configuration insists on."""
    performance = config["performance"]
    if performance["attention"] == "sdpa":
        return rates["sdpa_times"]
    return rates["not_compiled_times"] if performance["compile"] is False else 1.0


def _learned(runs: list[Run], speed: Speed, model: Outline, dtype: str, where: str) -> tuple[Speed, float, str]:
    """Speed, start and basis as finished shards tell them."""
    speed, is_told = earlier.speed_of(runs, speed)
    basis = f"from {'a finished shard' if len(runs) == 1 else f'{len(runs)} finished shards'} {where}"
    if is_told:
        tokens, dealt = par_tokens(speed, model.config, earlier.BYTES[dtype]), model.family.cost.par_tokens
        basis += (
            f", by which attention takes as long as all else at {tokens:,.0f} tokens (shards are dealt by {dealt:,.0f})"
        )
    return speed, sum(run.start_s for run in runs) / len(runs), basis


def par_tokens(speed: Speed, config: Config, itemsize: int) -> float:
    """The tokens of a sequence for which attention takes as long as all else, as in `CostInTokens`; see `Work.of`."""
    rest, attention = (Work.summed(config, *sums, 1, itemsize) for sums in ((1.0, 0.0), (0.0, 1.0)))
    return speed.seconds(rest) / speed.seconds(attention)
