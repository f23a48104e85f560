"""Values as people write them, so exactly that reading what is written gives the very same value.

Promises: `parse_…(spell_…(x)) == x` (values.py) for every x that reading can have given. Seconds, bytes, shares of 1,
events a second. Called by dump.py.
"""

from __future__ import annotations

import math
from decimal import Decimal

from lbsvc.config.values import parse_duration, parse_rate, parse_share, show_size


def spell_duration(seconds: float) -> str | float:
    """1h, 10m, 5s, 250ms; a plain number where no such word is exact."""
    if seconds and seconds % 3600 == 0:
        found = f"{seconds / 3600:.0f}h"
    elif seconds > 60 and seconds % 60 == 0:
        found = f"{seconds / 60:.0f}m"
    elif seconds == 0 or seconds >= 1:
        found = f"{_digits(seconds)}s"
    else:
        found = f"{_digits(round(seconds * 1000, 9))}ms"
    return found if parse_duration(found) == seconds else seconds


def spell_size(size: int) -> str | int:
    """16KiB, 8MiB, 1GiB; a plain number where it is no whole number of them."""
    found = show_size(size)
    return size if found.isdigit() else found


def spell_share(share: float) -> str:
    """20%."""
    near = float(Decimal(repr(share)) * 100)
    # Dividing by 100 rounds: what gives this very share is the nearest number of percents, or one beside it.
    for percent in (near, math.nextafter(near, 0.0), math.nextafter(near, 101.0)):
        for found in (f"{_digits(percent)}%", f"{percent:.30f}%"):
            if parse_share(found) == share:
                return found
    return f"{_digits(near)}%"


def spell_rate(rate: float) -> str:
    """100/s; by the minute or the hour where that is shorter."""
    written = [f"{_digits(round(rate * seconds, 9))}/{unit}" for unit, seconds in (("s", 1), ("m", 60), ("h", 3600))]
    exact = [found for found in (*written, f"{_digits(rate)}/s", f"{rate:.30f}/s") if parse_rate(found) == rate]
    return min(exact, key=len) if exact else written[0]


def _digits(number: float) -> str:
    """A number as Python shows it, without an exponent and without a needless fraction."""
    return format(Decimal(repr(number)), "f").removesuffix(".0")
