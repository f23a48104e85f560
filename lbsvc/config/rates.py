"""How `rate_limit` is read, of listeners and of routes.

Promises: the bucket that comes out lets somebody in: a rate above 0, a burst of at least 1, a key that requests can have.
Called by listeners.py and routes.py; core/ratelimit.py obeys.
"""

from __future__ import annotations

import math
from typing import Any, Final

from lbsvc.config.request_keys import request_key
from lbsvc.config.shapes import like, shaped
from lbsvc.config.values import RATE, nullable, nullable_text, number, parse_rate
from lbsvc.config.walk import Refused, Section, Spot
from lbsvc.core.policies import RatePolicy

#: A token in a thousand hours, and more than any machine can be asked for: between them all is reckoned exactly.
_SLOWEST: Final = 0.001 / 3600
_FASTEST: Final = 1_000_000_000


@shaped(RATE)
def _rate(spot: Spot) -> float:
    found = parse_rate(spot.text() or "")
    if found is None:
        spot.expect("a rate such as 100/s or 6000/m")
    if found == 0:
        spot.expect("above 0; off is no limit")
    if found < _SLOWEST:
        spot.expect("0.001/h or more")
    if found > _FASTEST:
        spot.expect(f"{_FASTEST}/s or less")
    return found


def _policy(rate: float, burst: int | None = None, key: str = RatePolicy.key) -> RatePolicy:
    """`burst` is by default what comes in one second, in whole tokens: one at least, since the rate is above 0."""
    return RatePolicy(rate, math.ceil(rate) if burst is None else burst, key)


def _rate_limit(spot: Spot, found: dict[str, Any]) -> RatePolicy | None:
    if spot.is_hollow:
        return None
    if found.get("rate") is None:
        if "rate" not in spot.entries() or "rate" in found:
            spot.missing("rate")
        raise Refused
    return _policy(**found)


_SECTION: Final[Section[RatePolicy | None]] = Section(
    {
        "rate": nullable_text(_rate),
        "burst": nullable(number(1, _FASTEST)),
        "key": request_key("client_ip", "header:NAME", "listener"),
    },
    _rate_limit,
    off=(None,),
    short=shaped(like(_rate))(lambda spot: _policy(_rate(spot))),
)

#: 100/s, or a section; null is none.
RATE_LIMIT: Final = nullable_text(_SECTION)
