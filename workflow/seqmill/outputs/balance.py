"""Whether shards took the time that their sequences were predicted to take: what each was assigned, beside what it took."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd


def seconds(metas: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Predicted and measured seconds of the steady state of some shards, a row for each.

    What the shards on one kind of device took together is shared out by the cost that was predicted for each. So
    the two columns are alike where shards are well balanced by that prediction, however fast the device is.

    Args:
        metas: their meta.json files.

    Returns:
        measured_s, and predicted_s, which is missing where a shard is of a version that did not record its cost.
    """
    table = pd.DataFrame(
        {
            "device": [found["device"] for found in metas],
            "cost": [found.get("predicted_cost", math.nan) for found in metas],
            "measured_s": [float(found["timings"]["steady_s"]) for found in metas],
        }
    )
    known = table[table["cost"].notna()]
    together = known.groupby("device")[["cost", "measured_s"]].transform("sum")
    predicted = (known["cost"] / together["cost"] * together["measured_s"]).reindex(table.index)
    return pd.DataFrame({"predicted_s": predicted.round(2), "measured_s": table["measured_s"].round(2)})
