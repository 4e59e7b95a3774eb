"""Programs in processes of their own that do not import PyTorch and Snakemake first.

Of the time that a short command takes, nine tenths are these imports. One process does them once, and each program runs
in a fork of it: a process like any other, with its own arguments, environment, folder, output and end. What must be
proved of the whole command, from the shell on, takes `subprocess` instead.
"""

import importlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from paths import REPOSITORY

_FORKS = multiprocessing.get_context("forkserver")
# Nothing of seqmill's: faults are put into modules while they are imported.
_FORKS.set_forkserver_preload(["torch", "snakemake.cli"])


class Program:
    """A program under way.

    Args:
        program: the path of a script, or the name of a module as for `python -m`.
        environment: all of its variables; this process's if left out.
    """

    def __init__(
        self,
        program: str | Path,
        *arguments: str | Path,
        folder: Path | None = None,
        environment: dict[str, str] | None = None,
    ):
        self.arguments = [str(program), *map(str, arguments)]
        # A file: what outlives the program would hold a pipe open.
        descriptor, self._output = tempfile.mkstemp(prefix="seqmill-test-")
        os.close(descriptor)
        variables = dict(os.environ) if environment is None else environment
        self._process = _FORKS.Process(
            target=_become, args=(self.arguments, str(folder or Path.cwd()), variables, self._output)
        )
        self._process.start()

    def is_running(self) -> bool:
        return self._process.is_alive()

    def signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def wait(self, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """How it ended; its standard error is in `stdout` too, where it happened."""
        self._process.join(timeout)
        output = Path(self._output).read_text()
        if self._process.exitcode is None:
            self._process.kill()
            raise subprocess.TimeoutExpired(self.arguments, timeout, output)
        Path(self._output).unlink()
        return subprocess.CompletedProcess(self.arguments, self._process.exitcode, output)


def run(program: str | Path, *arguments: str | Path, **options) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; arguments as for `Program`."""
    return Program(program, *arguments, **options).wait()


def wait_until(condition, program: Program, seconds: float = 60) -> None:
    """Wait for something to happen while a program runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert program.is_running(), program.wait().stdout
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _become(arguments: list[str], folder: str, environment: dict[str, str], output: str) -> None:
    """Turn this process into the program."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    # What pytest added would hide that a program does not find its own modules.
    sys.path[:] = [entry for entry in sys.path if "site-packages" in entry or REPOSITORY not in Path(entry).parents]
    if injected := environment.get("PYTHONPATH"):
        # As Python does when it starts.
        sys.path[:0] = injected.split(os.pathsep)
        sys.modules.pop("sitecustomize", None)
        with suppress(ImportError):
            importlib.import_module("sitecustomize")
    sys.argv = arguments
    is_script = arguments[0].endswith(".py")
    sys.orig_argv = [sys.executable, *([] if is_script else ["-m"]), *arguments]
    if is_script:
        runpy.run_path(arguments[0], run_name="__main__")
    else:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
