"""What all command-line tools share: logging, and how they end."""

import errno
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from seqmill.errors import UserError, is_disk_full
from seqmill.files import DISK_FULL

log = logging.getLogger(__name__)

FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def set_up_logging(verbose: bool = False) -> None:
    """Log to standard error, seqmill's own debug lines too if `verbose`."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("seqmill").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(True)
    # If the log cannot be written (a full disk, say), tracebacks about that must not bury the last line.
    logging.raiseExceptions = False


@contextmanager
def importing() -> Iterator[None]:
    """Leave out garbage collection while modules are imported, and leave out what they hold from then on.

    Modules are garbage only when the process ends; looking at their objects again and again is a quarter of the time that
    importing torch takes.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def run(main: Callable[[], int | None]) -> None:
    """Run a tool's `main` and exit: with its status, or with 1 and one clear line at the end."""
    try:
        status = main() or 0
        # Here and not when Python ends, so that a failure is reported like any other.
        sys.stdout.flush()
        # What is alive goes with the process: Python need not look for garbage in it.
        gc.freeze()
        sys.exit(status)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted")
    except BrokenPipeError:
        # Whoever read the output, `head` for one, has seen enough.
        _drop_output()
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        if is_disk_full(error):
            _drop_output()
            where = f"{error.filename}: " if getattr(error, "filename", None) else ""
            sys.exit(f"error: {where}{DISK_FULL}")
        if isinstance(error, OSError) and error.errno in FORBIDDEN and error.filename:
            sys.exit(f"error: {error.filename}: {error.strerror}; give this user access to it, or use another folder")
        # Not a mistake of the user, so the log keeps the traceback; the last line still says what happened.
        log.exception("unexpected failure")
        sys.exit(f"error: {type(error).__name__}: {error}")


def _drop_output() -> None:
    """Send what is left of the output nowhere: otherwise Python, which flushes it when it ends, would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
