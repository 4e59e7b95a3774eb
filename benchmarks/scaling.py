"""How long a run takes on N GPUs and what it costs, by the model that `seqmill plan` uses, for inputs and machines that are not here.

    scaling.py --fasta sample.fasta.gz --mean 285 --sequences 60e6 --shards 64 --models 650M 3B --gpus 1 8 64 --price 2.5
    scaling.py --fasta sample.fasta.gz --against results/2026-11-26_4xh100_gpus.json

The lengths are those of a sample, perhaps all longer or shorter by a factor, as many times as it takes; up to a million of them
are dealt to shards as the command shard does. Rates are those of planning/rates.json, measured on single GPUs.

`--against` holds the same prediction to what gpus.py or plans.py have measured: from those rates ("rates"), and of several GPUs
also from what one GPU did in the same file ("one GPU"), as a plan learns from finished shards. No run with several GPUs is fitted.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import report
from rates import HUB

from seqmill.inputs import census
from seqmill.inputs.windows import Treatment
from seqmill.outputs import datasets
from seqmill.outputs.datasets import Dataset
from seqmill.planning import cards, devices, estimate, outline
from seqmill.planning import config as configuration
from seqmill.planning.devices import Device
from seqmill.planning.earlier import BYTES, Run
from seqmill.planning.estimate import Estimate
from seqmill.planning.outline import Outline
from seqmill.planning.rates import Work
from seqmill.planning.workload import Workload, longest_piece

# Sequences of a sample that are dealt at most: the more there are, the smaller the imbalance, so that it is not made too small.
DEALT = 1_000_000
# Check reads what the shards wrote; merge reads it again and writes as much.
PASSES = 3
RATES, ONE_GPU = "rates", "one GPU"
ALIKE = ("model", "pooling", "records")


def outlined(model: str) -> Outline:
    """A model of the benchmarks, of the hub, or in a folder."""
    return outline.of(HUB.get(model, model), None, Path("no record"))


def workload(lengths: np.ndarray, model: Outline, shards: int, sequences: float) -> Workload:
    """Shards of so many sequences whose lengths are distributed as some are."""
    sample = np.tile(lengths, math.ceil(min(sequences, DEALT) / len(lengths)))
    made, times = Workload.of(sample, Treatment(), model, shards), sequences / len(sample)
    summed = ("tokens", "squares", "kept", "sequences", "letters", "costs")
    return replace(made, **{name: times * getattr(made, name) for name in summed})


def device(card: str, model: Outline, gpus: int) -> Device:
    """So many GPUs of a kind, by what was measured on single ones."""
    config = configuration.check({"fasta": "none.fasta", "model": {"name": model.name}})
    return devices.on_card(cards.known(card), config, model, Path("no results"), gpus)


def stored(model: Outline, pooling: list[str], dtype: str) -> list[Dataset]:
    """What is written of the last layer."""
    single = model.family.letters_per_token == 1
    return datasets.resolve([model.config.layer_count], pooling, model.config.width, dtype, single)


def bytes_of(made: Workload, kept: list[Dataset]) -> float:
    """What some datasets take of all sequences."""
    return float(sum((made.kept if d.is_per_token else made.sequences).sum() * d.row_bytes for d in kept))


def estimated(on: Device, made: Workload, model: Outline, pooling: list[str], disk: float) -> Estimate:
    """The embed jobs; `disk` is what all of them can write together, in bytes per second."""
    longest = longest_piece(int(made.largest.max()), Treatment(), model)
    kept = stored(model, pooling, on.dtype)
    return estimate.of(on, made, kept, model, model.config.layer_count, longest, written_per_s=disk / on.at_once)


def predict(args: argparse.Namespace, lengths: np.ndarray, name: str, gpus: int) -> dict[str, Any]:
    """A row: a model on so many GPUs."""
    model = outlined(name)
    made = workload(lengths, model, max(gpus * args.shards_per_gpu, args.shards), args.sequences)
    on = device(args.card, model, gpus)
    jobs = estimated(on, made, model, args.pooling, args.disk * 1e9)
    written = bytes_of(made, stored(model, args.pooling, on.dtype))
    steps = estimate.other_steps(round(args.sequences), written)
    steps["check and merge"] = max(steps["check and merge"], PASSES * written / (args.disk * 1e9))
    whole = jobs.wall_s + sum(steps.values())
    return {
        "model": name,
        "gpus": gpus,
        "shards": len(made.tokens),
        "letters": round(made.letters.sum()),
        "imbalance": round(made.imbalance, 5),
        "start_s": round(on.start_s, 1),
        "embed_h": round(jobs.wall_s / 3600, 2),
        "shard_h": round(steps["shard"] / 3600, 2),
        "check_merge_h": round(steps["check and merge"] / 3600, 2),
        "whole_h": round(whole / 3600, 2),
        "gpu_hours": round(gpus * jobs.wall_s / 3600, 1),
        "cost": round(args.price * gpus * jobs.wall_s / 3600, 1),
        "written_TB": round(written / 1e12, 2),
    }


def held(path: Path, samples: dict[str, np.ndarray], disk: float) -> Iterator[dict[str, Any]]:
    """Rows of what a result file has measured, each beside what was to be predicted.

    Args:
        samples: lengths of sequences by the name of their file.
        disk: bytes per second that all jobs can write together.
    """
    result = json.loads(path.read_text())
    compare = {"gpus": of_gpus, "plans": of_plans}.get(result.get("benchmark"))
    if compare is None:
        raise SystemExit(f"{path}: is no result of gpus.py or plans.py")
    names = [result["fasta"]] if isinstance(result["fasta"], str) else result["fasta"]
    if missing := {stem(name) for name in names} - samples.keys():
        raise SystemExit(f"{path}: is of {', '.join(sorted(missing))}; give these sequences with --fasta, too")
    yield from compare(result, samples, disk)


def of_gpus(result: dict[str, Any], samples: dict[str, np.ndarray], disk: float) -> Iterator[dict[str, Any]]:
    """Of a result of gpus.py: the makespan of the embed jobs, and the whole run through Snakemake."""
    lengths = np.minimum(samples[stem(result["fasta"])], result["cut"])
    alone = {tuple(row[name] for name in ALIKE): row for row in result["rows"] if row["gpus"] == 1}
    for row in result["rows"]:
        if row.get("shards_per_gpu", 1) > 1:
            # What further shards take is no matter of this model, which starts a job for each.
            continue
        model, pooling, gpus = outlined(row["model"]), [row["pooling"]], row["gpus"]
        made = workload(lengths, model, gpus, row["records"])
        on = device(result["device"], model, gpus)
        other = sum(estimate.other_steps(row["records"], bytes_of(made, stored(model, pooling, on.dtype))).values())
        yield compared(row, RATES, estimated(on, made, model, pooling, disk).wall_s, other)
        one = alone.get(tuple(row[name] for name in ALIKE))
        if gpus > 1 and one:
            run = finished(one, workload(lengths, model, 1, row["records"]), model, on)
            jobs = estimated(devices.learned(on, [run], model), made, model, pooling, disk)
            yield compared(row, ONE_GPU, jobs.wall_s, one["whole_run_s"] - one["makespan_s"])


def finished(row: dict[str, Any], made: Workload, model: Outline, on: Device) -> Run:
    """The shard of one GPU as a plan takes a finished one."""
    work = Work.summed(model.config, made.tokens[0], made.squares[0], model.config.layer_count, BYTES[on.dtype])
    # Older results do not have it by itself.
    read = row.get("read_s", [estimate.READ_S * row["records"]])[0]
    return Run(on.name, 0, row["makespan_s"] - row["steady_s"][0] - read, row["steady_s"][0], work)


def compared(row: dict[str, Any], basis: str, makespan: float, other: float) -> dict[str, Any]:
    found = {**{name: row[name] for name in (*ALIKE, "gpus")}, "basis": basis}
    for name, predicted in (("makespan_s", makespan), ("whole_run_s", makespan + other)):
        found |= {name: row[name], f"predicted_{name}": round(predicted, 1)}
        found[f"{name.removesuffix('_s')}_error"] = round(predicted / row[name] - 1, 3)
    return found


def of_plans(result: dict[str, Any], samples: dict[str, np.ndarray], disk: float) -> Iterator[dict[str, Any]]:
    """Of a result of plans.py: one process on one GPU, from its start to its end."""
    for row in result["rows"]:
        name, every, repeats = row["input"].rsplit("_", 2)
        lengths = samples[name][:: int(every.removeprefix("every"))]
        pooling = row["flags"][1:] or ["mean"]
        model, records = outlined(row["model"]), len(lengths) * int(repeats.removeprefix("x"))
        jobs = estimated(device(result["device"], model, 1), workload(lengths, model, 1, records), model, pooling, disk)
        yield {
            **{"model": row["model"], "pooling": " ".join(pooling), "records": records, "gpus": 1, "basis": RATES},
            **{"makespan_s": row["measured_s"], "predicted_makespan_s": round(jobs.wall_s, 1)},
            "makespan_error": round(jobs.wall_s / row["measured_s"] - 1, 3),
        }


def stem(name: str) -> str:
    return Path(name).name.split(".")[0]


def read(paths: list[Path], model: str) -> dict[str, np.ndarray]:
    """The lengths of the sequences of some files, which a model takes; repeated ones count once."""
    alphabet = outlined(model).family.alphabet
    return {stem(str(path)): census.take([path], alphabet).lengths for path in paths}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--fasta", type=Path, nargs="+", required=True, help="sequences whose lengths count")
    add(
        "--against",
        type=Path,
        nargs="+",
        help="results of gpus.py and plans.py to compare with, of sequences in --fasta",
    )
    add("--models", nargs="+", default=["650M", "3B"], help=f"of {', '.join(HUB)}, hub ids or folders [650M 3B]")
    add("--gpus", type=int, nargs="+", default=[1, 8, 64], help="[1 8 64]")
    add("--card", default="H100", help="[%(default)s]")
    add("--sequences", type=float, default=60e6, help="distinct ones [%(default)s]")
    add("--mean", type=float, help="make all longer or shorter, to this mean length; left out: as they are")
    add("--pooling", nargs="+", default=["mean"], help="[mean]")
    add("--shards-per-gpu", type=int, default=1, help="[%(default)s]")
    add("--shards", type=int, default=1, help="at least so many in all [%(default)s]")
    add("--price", type=float, default=2.5, help="of a GPU for an hour [%(default)s]")
    add("--disk", type=float, help="GB/s that all jobs write together [2; with --against no limit]")
    add("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    samples = read(args.fasta, args.models[0])
    if args.against:
        disk = math.inf if args.disk is None else args.disk * 1e9
        rows = [row for path in args.against for row in held(path, samples, disk)]
        report("scaling", rows, args.output, against=[path.name for path in args.against])
        return
    args.disk = args.disk or 2.0
    lengths = np.concatenate(list(samples.values()))
    if args.mean:
        lengths = np.maximum(np.rint(lengths * (args.mean / lengths.mean())), 1).astype(np.int64)
    rows = [predict(args, lengths, model, gpus) for model in args.models for gpus in args.gpus]
    about = {
        "basis": device(args.card, outlined(args.models[0]), 1).basis,
        **{name: getattr(args, name) for name in ("card", "sequences", "price", "disk", "pooling")},
    }
    print(about["basis"])
    report("scaling", rows, args.output, **about, fasta=[path.name for path in args.fasta], mean=float(lengths.mean()))


if __name__ == "__main__":
    main()
