"""What a plan takes a run's devices for: GPUs of a kind, or this machine's CPUs; how fast, how many at once, by what evidence."""

from dataclasses import dataclass, replace
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
        start_s: seconds of a job without reading its sequences and without its batches.
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
    if card.is_measured and dtype != "float32":
        basis = f"from measured rates of the {card.name}; of {rates['runs']} measured runs, each predicted from those of other "
        basis += f"models, the worst was off by {rates['worst_error']:.0%}"
    else:
        basis = f"from the data sheet of the {card.name}, not measured: {SHEET_ERROR}"
    device = Device(card.name, card, dtype, speed, start, max(gpus, 1), basis)
    return learned(device, [run for run in _runs(config, model, results, dtype) if card.name in run.device], model)


def on_cpus(config: dict[str, Any], model: Outline, results: Path, shards: int) -> Device:
    """This machine's CPUs, shared by the shards' jobs as Snakemake shares them. See `on_card`."""
    dtype, cpus = config["model"]["dtype"], calibration.cpus()
    dtype = "float32" if dtype == "auto" else dtype
    threads = max(cpus // shards, 1)
    at_once = min(max(cpus // threads, 1), shards)
    matmul, copy = calibration.measured()
    share, rates = threads / cpus, RATES["cpu"]
    speed = Speed(matmul * share, copy * share, rates["shares"])
    basis = "from a second of matrix products on this machine as busy as it is now; expect it to be off by a half"
    device = Device(f"{cpus} CPUs", None, dtype, speed, CPU_START_S, at_once, basis)
    # Of another time, with other neighbours: only what took how long counts then, not what the CPUs can do now.
    return learned(device, [run for run in _runs(config, model, results, dtype) if run.threads == threads], model)


def learned(device: Device, runs: list[Run], model: Outline) -> Device:
    """The device as finished shards on such a one show it; as it is where there are none."""
    if not runs:
        return device
    speed, is_told = earlier.speed_of(runs, device.speed)
    where = "on such a card" if device.card else "on such CPUs"
    basis = f"from {'a finished shard' if len(runs) == 1 else f'{len(runs)} finished shards'} {where}"
    if is_told:
        tokens = par_tokens(speed, model.config, earlier.BYTES[device.dtype])
        basis += f", by which attention takes as long as all else at {tokens:,.0f} tokens "
        basis += f"(shards are dealt by {model.family.cost.par_tokens:,.0f})"
    return replace(device, speed=speed, start_s=sum(run.start_s for run in runs) / len(runs), basis=basis)


def _runs(config: dict[str, Any], model: Outline, results: Path, dtype: str) -> list[Run]:
    return earlier.find(earlier.folders(results, reuse.earlier_results(config)), model, dtype)


def _slower(config: dict[str, Any], rates: dict[str, Any]) -> float:
    """How many times as long it takes with the kernels that the configuration insists on."""
    performance = config["performance"]
    if performance["attention"] == "sdpa":
        return rates["sdpa_times"]
    return rates["not_compiled_times"] if performance["compile"] is False else 1.0


def par_tokens(speed: Speed, config: Config, itemsize: int) -> float:
    """The tokens of a sequence for which attention takes as long as all else, as in `CostInTokens`; see `Work.of`."""
    rest, attention = (Work.summed(config, *sums, 1, itemsize) for sums in ((1.0, 0.0), (0.0, 1.0)))
    return speed.seconds(rest) / speed.seconds(attention)
