"""GPUs: what is known of each, and which this machine has. Imports no torch."""

import subprocess
from dataclasses import dataclass, replace

from seqmill.errors import UserError
from seqmill.planning.rates import MEASURED_CARDS

# Of data sheets: GiB of memory, TFLOP/s of matrix products in bfloat16 or float16 (without sparsity, summed in float32) and
# in float32, TB/s of memory, and whether bfloat16 is as fast. A part of a name that stands in another one comes behind it.
SHEETS = {
    "B200": (180, 2250, 75, 8.0, True),
    "GH200": (96, 989, 67, 4.0, True),
    "H200": (141, 989, 67, 4.8, True),
    "H100 PCIe": (80, 756, 51, 2.0, True),
    "H100": (80, 989, 67, 3.35, True),
    "A100": (40, 312, 19.5, 1.55, True),
    "A40": (48, 150, 37, 0.7, True),
    "A30": (24, 165, 10.3, 0.93, True),
    "A10": (24, 125, 31, 0.6, True),
    "L40S": (48, 362, 92, 0.86, True),
    "L40": (48, 181, 90, 0.86, True),
    "L4": (24, 121, 30, 0.3, True),
    "RTX 6000 Ada": (48, 364, 91, 0.96, True),
    "RTX A6000": (48, 155, 39, 0.77, True),
    "RTX 5090": (32, 210, 105, 1.79, True),
    "RTX 4090": (24, 165, 83, 1.0, True),
    "RTX 3090": (24, 71, 36, 0.94, True),
    "V100": (16, 125, 15.7, 0.9, False),
    "T4": (16, 65, 8.1, 0.32, False),
}
# GB as data sheets mean it lies between 10**9 and 2**30 bytes; what cards show of it is less than the latter.
GB = 0.98 * 2**30
# What is left of a data sheet's rates in long runs: an H100 and an H200 keep 0.67 to 0.7 of them, and copy at 0.9.
SUSTAINED, COPIED = 0.65, 0.9
# In a table of cards where there is none here and none was named: from large to small.
SHOWN = ("H200", "H100", "A100", "L40S", "RTX 4090", "L4", "T4")


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        name: of the table.
        memory_bytes: of it in all.
        half, single: operations per second of matrix products that it sustains in half precision and in float32.
        copy: bytes per second that it reads and writes, copying.
        has_bfloat16: at full rate.
        is_measured: whether these rates are measured, and not a share of its data sheet's.
    """

    name: str
    memory_bytes: float
    half: float
    single: float
    copy: float
    has_bfloat16: bool
    is_measured: bool

    def matmul(self, dtype: str) -> float:
        """Operations per second of matrix products in a dtype."""
        return self.single if dtype == "float32" else self.half


def known(name: str) -> Card:
    """The card whose name is, or is part of, the one given.

    Raises:
        UserError: there is none.
    """
    key = next((key for key in SHEETS if key.lower() in name.lower().replace("-", " ")), None)
    if key is None:
        raise UserError(f"--gpu {name}: nothing is known of such a card; known are {', '.join(SHEETS)}")
    memory, half, single, copy, has_bfloat16 = SHEETS[key]
    measured = MEASURED_CARDS.get(key, {})
    return Card(
        key,
        memory * GB,
        measured.get("matmul", SUSTAINED * half * 1e12),
        SUSTAINED * single * 1e12,
        measured.get("copy", COPIED * copy * 1e12),
        has_bfloat16,
        bool(measured),
    )


def here() -> list[Card]:
    """This machine's GPUs that something is known of; none where nvidia-smi lists none."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for line in listed.splitlines():
        name, _, mebibytes = line.rpartition(",")
        try:
            found.append(replace(known(name), memory_bytes=float(mebibytes) * 2**20))
        except (UserError, ValueError):
            continue
    return found
