"""What earlier jobs measured of the same kernels on the same kind of GPU: kept beside Triton's compiled kernels.

A job then need not measure it again; whether its kernels compute what they should it tries out nevertheless.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from seqmill.errors import UserError
from seqmill.files import read_json, write_json

log = logging.getLogger(__name__)

FOLDER = "seqmill"


def folder() -> Path:
    """Where they are: in the folder in which Triton keeps what it compiled."""
    home = Path(os.environ.get("TRITON_HOME") or Path.home())
    return Path(os.environ.get("TRITON_CACHE_DIR") or home / ".triton" / "cache") / FOLDER


class Remembered:
    """Measurements by name, in a file for all jobs that agree in `circumstances`.

    A file that is missing or damaged, or cannot be written, only means that there is something to measure.

    Args:
        circumstances: what the measurements depend on.
    """

    def __init__(self, circumstances: Mapping[str, Any]):
        self.circumstances = json.loads(json.dumps(circumstances))
        digest = hashlib.sha256(json.dumps(self.circumstances, sort_keys=True).encode()).hexdigest()
        self.path = folder() / f"{digest[:32]}.json"
        self._found: dict[str, Any] = {}
        try:
            content = read_json(self.path)
            if content["for"] == self.circumstances:
                self._found = dict(content["found"])
        except (OSError, ValueError, KeyError, TypeError):
            log.debug("nothing is remembered in %s", self.path)

    def get(self, name: str) -> Any:
        """What was measured under a name; None for nothing."""
        return self._found.get(name)

    def keep(self, name: str, value: Any) -> Any:
        """Remember a measurement, which JSON must be able to hold; gives it back."""
        self._found[name] = value
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"for": self.circumstances, "found": self._found}, sync=False)
        except (OSError, UserError) as error:
            log.debug("not remembered: %s", error)
        return value

    def recall(self, name: str, measure: Callable[[], Any]) -> Any:
        """What was measured under a name before, or now, as JSON keeps it."""
        return self._found[name] if name in self._found else self.keep(name, measure())
