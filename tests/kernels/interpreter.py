"""Programs that need a process of their own, since Triton reads its variables when a kernel is defined."""

import os
import subprocess
import sys

from paths import REPOSITORY


def run(program: str, *arguments: str, **variables: str) -> str:
    """What the Python program prints, without a GPU; it must not fail."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow"), "CUDA_VISIBLE_DEVICES": "", **variables}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
