"""Numbers in words: times in the unit that suits them, counts with their noun."""

from datetime import timedelta

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def seconds(value: float) -> str:
    """A time as people say it: 0.31 s, 12 s, 3 min 20 s, 5 h 4 min, 2 days 3 h."""
    if value < 10:
        return f"{value:.1f} s" if value >= 0.95 or value == 0 else f"{value:.2f} s"
    whole = timedelta(seconds=round(value))
    minutes, left = divmod(whole.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(whole.days, "days" if whole.days > 1 else "day"), (hours, "h"), (minutes, "min"), (left, "s")]
    while not parts[0][0]:
        parts.pop(0)
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count)


def unit_of(longest: float) -> tuple[float, str]:
    """The unit of an axis that reaches so many seconds: what to divide by, and its name."""
    for unit, name in ((DAY, "days"), (HOUR, "hours"), (MINUTE, "minutes")):
        if longest >= 3 * unit:
            return unit, name
    return 1.0, "seconds"


def counted(count: int, noun: str) -> str:
    """1 shard, 64 shards."""
    return f"{count:,} {noun}" if count != 1 else f"1 {noun.removesuffix('s')}"


def percent(share: float) -> str:
    """A share of 1 with two digits: 34 %, 4.1 %, 0.3 %, under 0.1 %."""
    if 0 < share < 0.0005:
        return "under 0.1 %"
    return f"{share:.0%}".replace("%", " %") if share >= 0.0995 or share == 0 else f"{share:.1%}".replace("%", " %")
