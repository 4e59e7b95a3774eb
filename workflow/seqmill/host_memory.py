"""Host memory that this process may use: what is free, within what the job was granted."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def allowed_bytes() -> int:
    """Memory that this process may take: free on this machine, and within its control group and SLURM's grant.

    What other processes of the same group or job hold is not subtracted.
    """
    return min(_limits(), default=2**30)


def _limits() -> Iterator[int]:
    with suppress(OSError):
        if found := re.search(r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE):
            yield int(found[1]) * 1024
    granted = os.environ.get("SLURM_MEM_PER_NODE", "")
    if granted.isdecimal() and int(granted):
        yield int(granted) * 2**20
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from _limits_of_group(CGROUPS, path, "memory.max")
            elif "memory" in controllers.split(","):
                yield from _limits_of_group(CGROUPS / "memory", path, "memory.limit_in_bytes")


def _limits_of_group(root: Path, path: str, name: str) -> Iterator[int]:
    """The limits of a control group and of all above it; in a container the group itself may not be seen."""
    group = root / path.strip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            return
        with suppress(OSError, ValueError):
            yield int((folder / name).read_text())
