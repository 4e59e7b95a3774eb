"""Disturb the workflow in every way that a cluster does, rerun it, and see that the embeddings are the same each time.

    python tests/faults/campaign.py --runs 200 --seed 1

Each run begins with a copy of a project at some stage, suffers one fault, and is then rerun as a user would: the same
command, `--unlock` where Snakemake asks for it, `--forcerun` where seqmill does. It must end with the content of an
undisturbed run, bit for bit, and leave nothing else behind. Full disks need root, for a small tmpfs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults import FAULTS, FREQUENCIES, can_mount
from project import Project
from runs import Run, Stages, Unrecovered, compare, gone_is_fine, prepare, processes_of, recover


def disturb_and_recover(stages: Stages, folder: Path, fault: str, seed: str) -> dict[str, object]:
    """One run from its fault to the comparison; what happened, for a table."""
    run = Run(Project(folder), stages, random.Random(seed), [])
    row: dict[str, object] = {"seed": seed, "fault": fault}
    begun = time.monotonic()
    try:
        FAULTS[fault](run)
        row["commands"] = recover(run)
        compare(run)
        row["ended"] = "same"
        row["resumed"] = sum(
            json.loads(path.read_text())["resumed_after"] > 0 for path in folder.glob("results/embed/*/meta.json")
        )
    except Unrecovered as error:
        row["ended"] = str(error)
    except Exception:
        row["ended"] = f"the campaign itself failed:\n{traceback.format_exc()}"
    finally:
        for pid in processes_of(run):
            with gone_is_fine():
                os.kill(pid, signal.SIGKILL)
        if (folder / "results").is_mount():
            subprocess.run(["umount", "--lazy", folder / "results"], check=True)
    if row["ended"] == "same":
        shutil.rmtree(folder, ignore_errors=True)
    return row | {"what": ", ".join(run.notes), "seconds": round(time.monotonic() - begun)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once [%(default)s]")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, help="only these")
    parser.add_argument("--output", type=Path, help="a JSON line per run")
    parser.add_argument("--folder", type=Path, help="where to work; runs that fail stay there [a temporary folder]")
    args = parser.parse_args()
    kinds = args.faults or [fault for fault in FAULTS if fault != "fill_disk" or can_mount()]
    draw = random.Random(args.seed)
    faults = draw.choices(kinds, [FREQUENCIES[kind] for kind in kinds], k=args.runs)
    folder = (args.folder or Path(tempfile.mkdtemp(prefix="seqmill-faults-"))).resolve()
    stages = prepare(folder)
    rows = []
    with ThreadPoolExecutor(args.jobs) as pool:
        tasks = [
            pool.submit(disturb_and_recover, stages, folder / str(number), fault, f"{args.seed}.{number}")
            for number, fault in enumerate(faults)
        ]
        for task in tasks:
            rows.append(task.result())
            print(json.dumps(rows[-1]), flush=True)
            if args.output:
                args.output.write_text("".join(json.dumps(row) + "\n" for row in rows))
    failed = [row for row in rows if row["ended"] != "same"]
    print(f"{len(rows)} runs ({dict(Counter(faults))}), {len(failed)} ended otherwise than an undisturbed one")
    print(f"{sum(bool(row.get('resumed')) for row in rows)} of them went on inside a shard")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
