"""The CUDA allocator's configuration. Imports no torch: it must act before torch does."""

import os
from collections.abc import MutableMapping

# PyTorch 2.9 renamed the variable and reads the new name first.
OLD_NAME, NEW_NAME = "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"


def configure(expandable_segments: bool, environment: MutableMapping[str, str] = os.environ) -> str:
    """Merge the setting into what the environment says already.

    Turned on, it replaces the environment's word on expandable segments; left off, that word stands.

    Returns:
        The configuration in force, as PyTorch will read it.
    """
    present = environment.get(NEW_NAME) or environment.get(OLD_NAME, "")
    parts = [part.strip() for part in present.split(",") if part.strip()]
    others = [part for part in parts if not part.startswith("expandable_segments:")]
    if expandable_segments:
        parts = [*others, "expandable_segments:True"]
    elif parts == others:
        parts.append("expandable_segments:False")
    merged = ",".join(parts)
    environment[OLD_NAME] = merged
    if NEW_NAME in environment:
        environment[NEW_NAME] = merged
    return merged
