"""Faults on demand: put this folder first on PYTHONPATH and set one of the variables.

    SEQMILL_TEST_OOM=0:1000              shard 0 runs out of memory at the first batch of more than 1,000 token slots
    SEQMILL_TEST_KILL=0:/path/to/marker  shard 0 kills itself at its first batch, unless the marker exists; leaves it
    SEQMILL_TEST_SLOW=0,2:1.5            shards 0 and 2 sleep 1.5 seconds with each batch
    SEQMILL_TEST_DEVICES=/path/to/folder each batch of shard 0 adds a line with the GPUs it is given to the folder's file 0
    SEQMILL_TEST_RECOMMEND=900           the diagnosis of an out of memory recommends that: on a CPU it has no grounds to
    SEQMILL_TEST_FLUSH=0.2               unfinished results are written down that often, in seconds
    SEQMILL_TEST_PART=20000              several threads write each batch of more bytes than that, even of a small model

Python imports this module when it starts. Without the variables it does nothing.
"""

import importlib.abc
import importlib.machinery
import os
import re
import signal
import sys
import time
from pathlib import Path

SHARD = re.compile(r"results/shards/(\d+)\.fasta$")


def _shard():
    """The number of the shard that this process embeds, or None where it embeds something else."""
    return next((match[1] for match in map(SHARD.search, sys.argv) if match), None)


def _run_out_of_memory(batch, shard, limit):
    import torch

    if _shard() == shard and len(batch.token_ids) > int(limit):
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB"
        )


def _die_once(batch, shard, marker):
    if _shard() == shard and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _be_slow(batch, shards, seconds):
    if _shard() in shards.split(","):
        time.sleep(float(seconds))


def _note_devices(batch, folder):
    with Path(folder, _shard()).open("a") as file:
        print(os.environ.get("CUDA_VISIBLE_DEVICES"), file=file)


def _fail_in_batches(pipeline):
    submit = pipeline.Pipeline.submit

    def submit_and_fail(self, batch):
        # First the batch itself, so that a diagnosis finds it where it looks for it.
        flight = submit(self, batch)
        for variable, fault in FAULTS.items():
            if value := os.environ.get(variable):
                fault(batch, *value.split(":", 1))
        return flight

    pipeline.Pipeline.submit = submit_and_fail


def _recommend(oom):
    size = int(os.environ.get("SEQMILL_TEST_RECOMMEND", 0))
    if size:
        oom.recommend_batch_size = lambda *_: (size, "a test")


def _flush_often(partial):
    partial.FLUSH_SECONDS = float(os.environ.get("SEQMILL_TEST_FLUSH", partial.FLUSH_SECONDS))


def _write_in_parts(writers):
    writers.PART_BYTES = int(os.environ.get("SEQMILL_TEST_PART", writers.PART_BYTES))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules as usual, but changes some of them when they have been loaded."""

    def find_spec(self, name, path, target=None):
        if name not in CHANGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def load_and_change(module):
            load(module)
            CHANGES[name](module)

        spec.loader.exec_module = load_and_change
        return spec


CHANGES = {
    "seqmill.engine.pipeline": _fail_in_batches,
    "seqmill.engine.oom": _recommend,
    "seqmill.outputs.partial": _flush_often,
    "seqmill.outputs.writers": _write_in_parts,
}
FAULTS = {
    # First, as the others may leave nobody to do it.
    "SEQMILL_TEST_DEVICES": _note_devices,
    "SEQMILL_TEST_SLOW": _be_slow,
    "SEQMILL_TEST_OOM": _run_out_of_memory,
    "SEQMILL_TEST_KILL": _die_once,
}
if any(variable.startswith("SEQMILL_TEST_") for variable in os.environ):
    sys.meta_path.insert(0, _Finder())
