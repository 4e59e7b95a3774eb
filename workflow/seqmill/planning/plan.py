"""A plan: what a run will compute, how long that takes, and what it needs, before anything of it runs. Imports no torch."""

import heapq
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqmill.errors import UserError
from seqmill.inputs import census, rounds
from seqmill.inputs.census import Census
from seqmill.inputs.record import SHOWN, shown
from seqmill.inputs.rounds import RECORDS
from seqmill.inputs.windows import ERROR, Treatment
from seqmill.models.family import limited
from seqmill.options import AUTO, OPTIONS
from seqmill.outputs import datasets
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.names import META
from seqmill.planning import cards, devices, disk, outline, paths, samples
from seqmill.planning import config as configuration
from seqmill.planning import resources as demand
from seqmill.planning.devices import Device
from seqmill.planning.earlier import BYTES
from seqmill.planning.outline import Outline
from seqmill.planning.rates import RATES, Work
from seqmill.planning.workload import Workload, longest_piece

# Results that one job writes, at the pace of a good disk; slower ones make storing every residue's state take longer.
WRITTEN_PER_S = 0.8e9
# The steps without a GPU, on one core: sharding a record; checking and merging one, and the bytes of its results.
SHARD_S, MERGE_S, MERGED_PER_S = 20e-6, 10e-6, 0.4e9
# An embed job reads its sequences before anything else, each in so many seconds.
READ_S = 10e-6
# Of Snakemake and the processes that it starts.
STEPS_S = 20.0
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


@dataclass(frozen=True)
class Plan:
    """All that a plan says.

    Attributes:
        census: what the input holds.
        treatment: what happens to long sequences.
        stored: the datasets of the results.
        layers: that are computed.
        estimates: of each device that was asked for.
        host_mb, minutes: what an embed job asks of a cluster, of the largest shard.
        other_s: seconds of the steps besides embedding.
        is_settled: whether the first estimate is of what the run will be computed on; else all are of cards that it might be.
        finished: shards that are done already.
        free_bytes: of the results' disk.
    """

    config: dict[str, Any]
    files: int
    samples: int
    census: Census
    model: Outline
    treatment: Treatment
    stored: list[Dataset]
    layers: tuple[int, ...]
    shards: Workload
    estimates: list[Estimate]
    is_settled: bool
    host_mb: int
    minutes: int
    disk: dict[str, float]
    other_s: float
    finished: int
    free_bytes: int


def make(config: dict[str, Any], results: Path, gpu: str | None = None) -> Plan:
    """Plan a run.

    Args:
        config: complete, see `config.check`.
        results: its folder, which need not exist.
        gpu: the card to plan for; None for those of this machine, or, where it has none, its CPUs and some known cards.

    Raises:
        UserError: a mistake in the input or the configuration, or nothing is known of the model or the card.
    """
    model = outline.of(config["model"]["name"], config["model"]["revision"], results / "weights.json")
    named, files, earlier = _input(config, results)
    found = census.take(files, model.family.alphabet, earlier)
    treatment = configuration.treatment(config)
    _refuse_long(found, treatment, model)
    layers = datasets.resolve_layers(_parsed(config, "layers"), model.config.layer_count)
    gpus = demand.gpu_count(config)
    count = demand.shard_count(config, gpus)
    made = Workload.of(found.lengths, treatment, model, count)
    chosen, is_settled = _devices(config, model, results, gpu, min(gpus, count), count)
    stored = _stored(config, model, layers, chosen[0].dtype, treatment)
    needs = disk.needed(found, made, stored, model)
    needs |= disk.exports(config.get("results", {}).get("formats", []), found, made, stored)
    longest = longest_piece(found.lengths.max(initial=0), treatment, model)
    return Plan(
        config,
        len(files),
        named,
        found,
        model,
        treatment,
        stored,
        layers,
        made,
        [_estimate(device, made, stored, model, layers[-1], longest, config) for device in chosen],
        is_settled,
        demand.host_mb(model.loaded_bytes, made.largest),
        demand.gpu_minutes(model.config.parameter_count, float(made.costs.max(initial=0))),
        needs,
        STEPS_S + found.records * (SHARD_S + MERGE_S) + needs[disk.MERGED] / MERGED_PER_S,
        len(list((results / "embed").rglob(META))),
        shutil.disk_usage(_existing(results)).free,
    )


def _input(config: dict[str, Any], results: Path) -> tuple[int, list[str], np.ndarray | None]:
    """How many samples there are, the files that are still to be sharded, and the keys of sequences that need not be."""
    named = samples.read_samples(config, must_exist=True)
    if named is None:
        return 0, paths.fasta_files(config), None
    planned = samples.plan_rounds(named, results / "shards")
    tables = [results / f"shards/{number}/{RECORDS}" for number in planned]
    done = [table for table in tables if table.exists()]
    # Those of the last round are all that is new; where nothing is new, a plan is of all.
    if len(done) == len(tables):
        return len(named), [path for given in named.values() for path in given], None
    new = [
        path
        for number, table in zip(planned, tables, strict=True)
        if table not in done
        for path in planned[number].files
    ]
    return len(named), new, census.keys(rounds.places(done).index) if done else None


def _devices(
    config: dict[str, Any], model: Outline, results: Path, gpu: str | None, at_once: int, shards: int
) -> tuple[list[Device], bool]:
    """The devices to plan for, and whether the first is the run's; see `make`."""
    if card := cards.known(gpu) if gpu else next(iter(cards.here()), None):
        return [devices.on_card(card, config, model, results, at_once)], True
    others = [devices.on_card(cards.known(name), config, model, results, at_once) for name in cards.SHOWN]
    # With a number of GPUs a run is meant for a cluster, or for another machine than this one.
    if config["performance"]["gpus"] != AUTO:
        return others, False
    return [devices.on_cpus(config, model, results, shards), *others], True


def _refuse_long(found: Census, treatment: Treatment, model: Outline) -> None:
    limit = limited(model.alphabet, treatment, model.family.letters_per_token == 1).longest
    if limit is None or not found.longest or found.longest[0][0] <= limit:
        return
    length, name = found.longest[0]
    count = int((found.lengths > limit).sum())
    others = f", and {count - 1:,} more sequences are too long" if count > 1 else ""
    by = "sequences.long: error lets pass" if treatment.long == ERROR else "this model takes"
    raise UserError(
        f"record '{shown(name, SHOWN)}' has {length:,} {model.alphabet.members}, and {limit:,} are the most that {by}{others}; "
        "shorten them, leave them out, or set sequences.long to window or truncate"
    )


def _parsed(config: dict[str, Any], name: str) -> Any:
    option = next(option for option in OPTIONS if option.name == name)
    return option.kind.parsed(config[option.section][name])


def _stored(
    config: dict[str, Any], model: Outline, layers: tuple[int, ...], dtype: str, treatment: Treatment
) -> list[Dataset]:
    asked = [p for name in _parsed(config, "pooling") for p in (model.family.pooling if name == AUTO else [name])]
    single, storage = model.family.letters_per_token == 1, config["model"]["storage"]
    storage = None if storage == AUTO else storage
    pooling = tuple(dict.fromkeys(asked))
    return datasets.resolve(layers, pooling, model.config.width, dtype, single, storage, treatment.long)


def _estimate(
    device: Device,
    made: Workload,
    stored: list[Dataset],
    model: Outline,
    depth: int,
    longest: int,
    config: dict[str, Any],
) -> Estimate:
    itemsize = BYTES[device.dtype]
    row_bytes = {per: sum(d.row_bytes for d in stored if d.is_per_token == per) for per in (False, True)}
    seconds = []
    for tokens, squares, sequences in zip(made.tokens, made.squares, made.sequences, strict=True):
        work = Work.summed(model.config, tokens, squares, depth, itemsize)
        written = sequences * row_bytes[False] + tokens * row_bytes[True]
        seconds.append(device.start_s + sequences * READ_S + max(device.speed.seconds(work), written / WRITTEN_PER_S))
    asked, usual = config["performance"]["batch_size"], BATCH_TOKENS if device.card else CPU_BATCH_TOKENS
    batch = usual if asked == AUTO else asked
    if device.card is None:
        return Estimate(device, sum(seconds), _makespan(seconds, device.at_once), max(batch, longest), None, True)
    numbers = model.config.matrices / model.config.width + 4 * model.config.width
    token_bytes = itemsize * RATES["gpu"]["activations"] * numbers + 2 * row_bytes[True]
    fixed = itemsize * model.config.parameter_count + CONTEXT_BYTES
    usable = USABLE_SHARE * device.card.memory_bytes
    if asked == AUTO:
        batch = int(min(batch, max((usable - fixed) / token_bytes, 0)))
    batch = max(batch, longest)
    peak = fixed + batch * token_bytes
    return Estimate(device, sum(seconds), _makespan(seconds, device.at_once), batch, peak, peak <= usable)


def _makespan(seconds: list[float], at_once: int) -> float:
    """When the last of some jobs ends, of which so many run at once, in their order."""
    ends = [0.0] * max(at_once, 1)
    for taken in seconds:
        heapq.heappush(ends, heapq.heappop(ends) + taken)
    return max(ends)


def _existing(folder: Path) -> Path:
    """The folder, or the one that it will be made in."""
    folder = folder.absolute()
    return folder if folder.exists() else _existing(folder.parent)
