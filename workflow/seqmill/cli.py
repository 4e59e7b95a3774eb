"""What all command-line tools share: logging, argument types, and how they end. Imports no torch."""

import argparse
import errno
import logging
import os
import sys
from collections.abc import Callable

from seqmill.errors import UserError
from seqmill.files import DISK_FULL, is_disk_full

log = logging.getLogger(__name__)

FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def set_up_logging(verbose: bool = False) -> None:
    """Log to standard error, seqmill's own debug lines too if `verbose`."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("seqmill").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(True)
    # A log that cannot be written, because the disk is full for one, must not bury the last line in tracebacks.
    logging.raiseExceptions = False


def auto_or_positive(text: str) -> int | None:
    """A whole number from 1, or None for auto."""
    return _auto_or_number(text, 1)


def auto_or_count(text: str) -> int | None:
    """A whole number from 0, or None for auto."""
    return _auto_or_number(text, 0)


def _auto_or_number(text: str, least: int) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"'{text}' is neither auto nor a whole number from {least}")
    return int(text)


def run(main: Callable[[], int | None]) -> None:
    """Run a tool's `main` and exit: with its status, or with 1 and one clear line at the end."""
    try:
        status = main() or 0
        # Here and not when Python ends, so that a failure is told like any other.
        sys.stdout.flush()
        sys.exit(status)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted")
    except Exception as error:
        if is_disk_full(error):
            # Else Python, which flushes its output when it ends, would fail once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            where = f"{error.filename}: " if getattr(error, "filename", None) else ""
            sys.exit(f"error: {where}{DISK_FULL}")
        if isinstance(error, OSError) and error.errno in FORBIDDEN and error.filename:
            sys.exit(
                f"error: {error.filename}: {error.strerror}; give this user the right to it, or use another folder"
            )
        # Not the user's mistake, so the log keeps the traceback; the last line still says what it was.
        log.exception("unexpected failure")
        sys.exit(f"error: {type(error).__name__}: {error}")
