"""A plan for people, and for programs."""

from dataclasses import asdict
from typing import Any

from seqmill.inputs.record import SHOWN, shown
from seqmill.inputs.windows import TRUNCATE, WINDOW
from seqmill.planning.estimate import Estimate
from seqmill.planning.plan import Plan
from seqmill.units import GIB

WIDTH = 12
# Sequences by name.
LISTED = 3


def describe(plan: Plan) -> str:
    """The plan as a table of sentences."""
    lines = [
        ("input", _input(plan)),
        ("longest", _longest(plan)),
        ("model", _model(plan)),
        ("stored", _stored(plan)),
        ("shards", _shards(plan)),
        *_devices(plan),
        ("other steps", f"about {_time(plan.other_s)} for sharding, checking and merging"),
        (
            "cluster job",
            f"{plan.host_mb / 1e3:,.0f} GB of memory and {_time(60 * plan.minutes)} are asked for each (profiles/slurm)",
        ),
        *_disk(plan),
    ]
    if plan.finished:
        lines.append(("finished", f"{plan.finished:,} shards are done already; what stands above is for all"))
    return "\n".join(f"{name:{WIDTH}}{text}" for name, text in lines)


def _input(plan: Plan) -> str:
    found, letters = plan.census, plan.model.alphabet.members
    files = _count(plan.files, "file") + (f" of {_count(plan.samples, 'sample')}" if plan.samples else "")
    elsewhere = ["earlier rounds of samples"] * bool(plan.samples) + ["results that are reused"] * bool(
        plan.config["reuse"]
    )
    known = f"; {found.known:,} more are in {' or '.join(elsewhere)}" if found.known else ""
    return (
        f"{_count(found.records, 'record')} in {files}; {len(found.lengths):,} distinct sequences to embed, "
        f"{found.lengths.sum():,} {letters}{known}"
    )


def _longest(plan: Plan) -> str:
    found, model, treatment = plan.census, plan.model, plan.treatment
    names = ", ".join(f"{shown(name, SHOWN)} ({length:,})" for length, name in found.longest[:LISTED])
    single = model.family.letters_per_token == 1
    unit = model.alphabet.members if single else "tokens"
    if treatment.longest is not None:
        what = {
            WINDOW: f"is embedded in windows that share {treatment.overlap:,} at least",
            TRUNCATE: "is cut off there",
        }
        treated = what.get(treatment.long, "would be refused")
        return f"{names}; what has more than {treatment.longest:,} {unit} {treated}: {_count(plan.shards.long, 'sequence')}"
    limit = model.family.trained
    longer = int((found.lengths / model.family.letters_per_token > limit).sum())
    text = f"{names}; embedded whole"
    if longer:
        text += f", as are all of the {longer:,} that are longer than those that {model.family.name} was trained on ({limit:,} {unit})"
    return text


def _model(plan: Plan) -> str:
    model, config = plan.model, plan.model.config
    return (
        f"{model.name}: {model.family.name}, {config.layer_count} layers, width {config.width:,}, "
        f"{config.parameter_count / 1e6:,.0f} million numbers (from {model.source})"
    )


def _stored(plan: Plan) -> str:
    token = "residue" if plan.model.family.cost.letters_per_token == 1 else "token"
    return ", ".join(
        f"{dataset.name} ({_count(dataset.width, 'number')} in {dataset.dtype} per "
        f"{token if dataset.is_per_token else 'sequence'})"
        for dataset in plan.stored
    )


def _shards(plan: Plan) -> str:
    made = plan.shards
    count = len(made.sequences)
    if count == 1:
        return "1, a job for all"
    least, most = made.sequences.min(), made.sequences.max()
    sizes = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    text = f"{count:,}, of {sizes} sequences; predicted imbalance {made.imbalance:.1%}"
    if made.imbalance > 0.1:
        text += ": the longest sequences keep one shard busy when the others are done"
    return text


def _devices(plan: Plan) -> list[tuple[str, str]]:
    others, lines = plan.estimates, []
    if plan.is_settled:
        first, *others = plan.estimates
        lines = [("computed on", _where(first)), ("time", _times(first)), ("", first.device.basis)]
        if first.peak_bytes is not None:
            lines.append(("GPU memory", _memory(first)))
    if others:
        lines.append(("on a GPU", f"none of this machine; with {others[0].device.at_once} at once it would be about"))
        lines += [("", _row(estimate)) for estimate in others]
    return lines


def _row(estimate: Estimate) -> str:
    """A line of the table of cards."""
    device = estimate.device
    hours, wall, memory = _time(estimate.busy_s), _time(estimate.wall_s), f"{estimate.peak_bytes / GIB:.1f} GiB"
    basis = "measured rates" if device.card.is_measured else "by its data sheet"
    if not estimate.fits:
        return f"{device.name:10}{memory:>9} are more than it has"
    return f"{device.name:10}{wall:>8}, {hours:>8} of GPU time, {memory:>9} of its memory, {basis}"


def _where(estimate: Estimate) -> str:
    device = estimate.device
    if device.card is None:
        return f"{device.name}, {_count(device.at_once, 'job')} at once, in {device.dtype}"
    return (
        f"{_count(device.at_once, 'GPU')} ({device.name}){'' if device.at_once == 1 else ' at once'}, in {device.dtype}"
    )


def _times(estimate: Estimate) -> str:
    what = "job" if estimate.device.card is None else "GPU"
    return f"{_time(estimate.wall_s)} from the first shard's start to the last one's end; {_time(estimate.busy_s)} of {what} time in all"


def _memory(estimate: Estimate) -> str:
    card = estimate.device.card
    text = f"{estimate.peak_bytes / GIB:.1f} of {card.memory_bytes / GIB:.0f} GiB, with batches of up to {estimate.batch_tokens:,} tokens"
    return (
        text if estimate.fits else f"{text}: more than there is; leave the longest sequences out, or take a larger card"
    )


def _disk(plan: Plan) -> list[tuple[str, str]]:
    needs = sum(plan.disk.values())
    enough = "" if needs < plan.free_bytes else ": TOO LITTLE"
    lines = [("disk", f"{_bytes(needs)} in all; {_bytes(plan.free_bytes)} are free{enough}")]
    return lines + [("", f"{_bytes(size):>9}  {name}") for name, size in plan.disk.items()]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _bytes(size: float) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"


def _time(seconds: float) -> str:
    """Two figures of it: 45 s, 2.5 min, 12 min, 3.4 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 600:
        return f"{seconds / 60:.1f} min"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 36_000 else f"{seconds / 3600:,.0f} h"


def content(plan: Plan) -> dict[str, Any]:
    """The plan as JSON has it; seconds and bytes."""
    found, made = plan.census, plan.shards
    return {
        "records": found.records,
        "distinct_sequences": len(found.lengths),
        "already_embedded": found.known,
        "letters": int(found.lengths.sum()),
        "tokens": round(float(made.tokens.sum())),
        "longest": [{"id": name, "letters": length} for length, name in found.longest],
        "long": {**asdict(plan.treatment), "sequences": plan.shards.long},
        "model": {
            "name": plan.model.name,
            "family": plan.model.family.name,
            "layers": plan.model.config.layer_count,
            "width": plan.model.config.width,
            "parameters": plan.model.config.parameter_count,
            "sizes_from": plan.model.source,
        },
        "datasets": [{"name": d.name, "per": d.per, "width": d.width, "dtype": str(d.dtype)} for d in plan.stored],
        "shards": {"count": len(made.sequences), "sequences": made.sequences.tolist(), "imbalance": made.imbalance},
        "devices": [
            {
                "name": estimate.device.name,
                "dtype": estimate.device.dtype,
                "at_once": estimate.device.at_once,
                "wall_s": round(estimate.wall_s, 1),
                "busy_s": round(estimate.busy_s, 1),
                "start_s": round(estimate.device.start_s, 1),
                "batch_tokens": estimate.batch_tokens,
                "peak_bytes": estimate.peak_bytes and round(estimate.peak_bytes),
                "fits": estimate.fits,
                "basis": estimate.device.basis,
            }
            for estimate in plan.estimates
        ],
        "other_steps_s": round(plan.other_s, 1),
        "cluster_job": {"mem_mb": plan.host_mb, "runtime_min": plan.minutes},
        "disk_bytes": {name: round(size) for name, size in plan.disk.items()},
        "free_bytes": plan.free_bytes,
        "finished_shards": plan.finished,
    }
