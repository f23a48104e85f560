"""What a request is known by: `hash_key` of pools, `key` of rate limits.

Promises: what comes out is one of the words, or header:name (in lower case, one that requests can have where it is looked
for) or cookie:NAME (a token). Called by pools.py and rates.py; http/placing.py and http/limiting.py look at requests.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from lbsvc.config.edits import FRAMING
from lbsvc.config.shapes import either, fitting, shaped
from lbsvc.config.values import TOKEN, header_fault, words
from lbsvc.config.walk import Spot

#: Headers that end at the balancer: a key of one would be a key of nothing.
_NEVER_THERE: Final = dict.fromkeys(FRAMING, "is a header that the balancer deals with itself: it is no key")
LONGEST_COOKIE: Final = 128


def request_key(*choices: str) -> Callable[[Spot], str]:
    """One of these, of which header:NAME and cookie:NAME stand for any name."""

    plain = [choice for choice in choices if not choice.endswith(":NAME")]
    named = [choice.removesuffix("NAME") for choice in choices if choice.endswith(":NAME")]

    @shaped(either({"enum": plain}, fitting(re.compile(f"(?:{'|'.join(named)})(?:{TOKEN.pattern})"))))
    def read(spot: Spot) -> str:
        found = spot.text()
        kind, colon, name = (found or "").partition(":")
        if found is None or (f"{kind}:NAME" if colon else found) not in choices:
            spot.refuse(f"must be {words(choices)}{spot.got(choices)}")
        if not colon:
            return found
        fault = header_fault(name, _NEVER_THERE) if kind == "header" else cookie_fault(name)
        if fault:
            spot.refuse(fault + spot.got())
        return f"header:{name.lower()}" if kind == "header" else found

    return read


def cookie_fault(name: str) -> str:
    """What is wrong with the name of a cookie, or ""."""
    if not TOKEN.fullmatch(name):
        return "is no name of a cookie"
    return f"must be at most {LONGEST_COOKIE} characters long" if len(name) > LONGEST_COOKIE else ""
