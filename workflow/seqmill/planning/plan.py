"""A plan: what a run will compute, how long that takes, and what it needs, before anything of it runs. Imports no torch."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqmill.errors import UserError
from seqmill.inputs import census, earlier_rounds
from seqmill.inputs.census import Census
from seqmill.inputs.record import SHOWN, shown
from seqmill.inputs.rounds import RECORDS
from seqmill.inputs.windows import ERROR, Treatment
from seqmill.models.family import limited
from seqmill.options import AUTO, OPTIONS
from seqmill.outputs import datasets
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.names import META
from seqmill.planning import cards, devices, disk, estimate, outline, paths, reuse, samples
from seqmill.planning import config as configuration
from seqmill.planning import resources as demand
from seqmill.planning.devices import Device
from seqmill.planning.estimate import Estimate
from seqmill.planning.outline import Outline
from seqmill.planning.workload import Workload, longest_piece


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
    batch = None if (asked := config["performance"]["batch_size"]) == AUTO else asked
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
        [estimate.of(device, made, stored, model, layers[-1], longest, batch) for device in chosen],
        is_settled,
        demand.host_mb(model.loaded_bytes, made.largest),
        demand.gpu_minutes(model.config.parameter_count, float(made.costs.max(initial=0))),
        needs,
        sum(estimate.other_steps(found.records, needs[disk.MERGED]).values()),
        len(list((results / "embed").rglob(META))),
        shutil.disk_usage(_existing(results)).free,
    )


def _input(config: dict[str, Any], results: Path) -> tuple[int, list[str], np.ndarray]:
    """How many samples there are, the files that are still to be sharded, and the keys of sequences that need not be."""
    named = samples.read_samples(config, must_exist=True)
    reused = reuse.keys(reuse.earlier_results(config))
    if named is None:
        return 0, paths.fasta_files(config), reused
    planned = samples.plan_rounds(named, results / "shards")
    tables = [results / f"shards/{number}/{RECORDS}" for number in planned]
    done = [table for table in tables if table.exists()]
    # Those of the last round are all that is new; where nothing is new, a plan is of all.
    if len(done) == len(tables):
        return len(named), [path for given in named.values() for path in given], reused
    new = [
        path
        for number, table in zip(planned, tables, strict=True)
        if table not in done
        for path in planned[number].files
    ]
    return len(named), new, np.concatenate([census.keys(earlier_rounds.places(done).index), reused])


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


def _existing(folder: Path) -> Path:
    """The folder, or the one that it will be made in."""
    folder = folder.absolute()
    return folder if folder.exists() else _existing(folder.parent)
