"""Disasters on demand, for tests/test_workflow.py: put this folder first on PYTHONPATH and set one of the variables.

    SEQMILL_TEST_OOM=0:1000              shard 0 runs out of memory at the first batch of more than 1,000 token slots
    SEQMILL_TEST_KILL=0:/path/to/marker  shard 0 kills itself at its first batch, unless the marker exists; leaves it
    SEQMILL_TEST_SLOW=0,2:1.5            shards 0 and 2 sleep 1.5 seconds before each batch
    SEQMILL_TEST_DEVICES=/path/to/folder each batch of shard 0 adds a line with the GPUs it is given to the folder's file 0

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

TARGET = "seqmill.esm2"
SHARD = re.compile(r"results/shards/(\d+)\.fasta$")


def _shard():
    """The number of the shard that this process embeds, or None where it embeds something else."""
    return next((match[1] for match in map(SHARD.search, sys.argv) if match), None)


def _run_out_of_memory(batch, shard, limit):
    import torch

    if _shard() == shard and len(batch.tokens) > int(limit):
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB"
        )


def _die_once(batch, shard, marker):
    if _shard() == shard and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _dawdle(batch, shards, seconds):
    if _shard() in shards.split(","):
        time.sleep(float(seconds))


def _note_devices(batch, folder):
    with Path(folder, _shard()).open("a") as file:
        print(os.environ.get("CUDA_VISIBLE_DEVICES"), file=file)


def _sabotage(esm2):
    forward = esm2.ESM2.forward

    def sabotaged(self, batch, layers):
        for variable, disaster in DISASTERS.items():
            if value := os.environ.get(variable):
                disaster(batch, *value.split(":", 1))
        return forward(self, batch, layers)

    esm2.ESM2.forward = sabotaged


class _Finder(importlib.abc.MetaPathFinder):
    """Finds seqmill.esm2 as usual, but changes it when it has been loaded."""

    def find_spec(self, name, path, target=None):
        if name != TARGET:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def load_and_sabotage(module):
            load(module)
            _sabotage(module)

        spec.loader.exec_module = load_and_sabotage
        return spec


DISASTERS = {
    # First, as the others may leave nobody to do it.
    "SEQMILL_TEST_DEVICES": _note_devices,
    "SEQMILL_TEST_SLOW": _dawdle,
    "SEQMILL_TEST_OOM": _run_out_of_memory,
    "SEQMILL_TEST_KILL": _die_once,
}
if any(os.environ.get(variable) for variable in DISASTERS):
    sys.meta_path.insert(0, _Finder())
