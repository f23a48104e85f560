"""How `sticky` of a pool is read.

Promises: a cookie that comes out is one that browsers keep, whatever its name and attributes; its key is shown in no
message. That there are requests at all, and that no two pools of a listener fight for one name, is for checks.py to see.
Called by pools.py; core/affinity.py and http/cookies.py obey.
"""

from __future__ import annotations

from typing import Any, Final

from lbsvc.config.request_keys import LONGEST_COOKIE, cookie_fault
from lbsvc.config.shapes import fitting, like, one_of, shaped
from lbsvc.config.values import TOKEN, duration, nullable_text, secret, text, word, words
from lbsvc.config.walk import RequestKey, Section, Spot
from lbsvc.core.policies import StickyPolicy

#: What means nothing where no cookie is set.
_COOKIES_ONLY: Final = ("cookie", "key", "secure", "same_site")
#: Browsers keep cookies whose names begin so, in any case, only where they are Secure (RFC 6265bis, 4.1.3).
_SECURE_NAMES: Final = ("__Host-", "__Secure-")
_SECURE: Final = ("auto", "true", "false")

_type = word("cookie", "ip")


@shaped(fitting(TOKEN, maxLength=LONGEST_COOKIE))
def _cookie(spot: Spot) -> str:
    found = text(spot)
    fault = cookie_fault(found)
    if fault:
        spot.refuse(fault + spot.got())
    return found


@shaped(one_of("auto", True, False))
def _secure(spot: Spot) -> str:
    """auto, or true or false as YAML says them."""
    if isinstance(spot.value, bool):
        return "true" if spot.value else "false"
    if spot.text() != "auto":
        spot.expect(words(_SECURE))
    return "auto"


def _sticky(spot: Spot, found: dict[str, Any]) -> StickyPolicy:
    policy = StickyPolicy(**found)
    if "type" in spot.entries() and "type" not in found:
        return policy  # which of the two was meant is not known
    if policy.type == "ip":
        for key in _COOKIES_ONLY:
            if found.get(key):
                spot.at(key).wrong("means nothing where type is ip")
        return policy
    if policy.secure == "false":
        why = "browsers drop such a cookie"
        if policy.same_site == "None":
            spot.at("secure").wrong(f"cannot be false where same_site is None: {why}")
        for prefix in _SECURE_NAMES:
            if policy.cookie.lower().startswith(prefix.lower()):
                spot.at("secure").wrong(f"cannot be false where the cookie's name begins with {prefix}: {why}")
    return _noted(spot, policy)


def _noted(spot: Spot, policy: StickyPolicy) -> StickyPolicy:
    """Leave with the walk what a policy asks of requests."""
    if policy.type == "cookie":
        spot.walk.request_keys.append(RequestKey(spot, spot.walk.pool_names[-1], policy.cookie))
    return policy


_SECTION: Final[Section[StickyPolicy | None]] = Section(
    {
        "type": _type,
        "cookie": _cookie,
        "key": secret,
        "ttl": duration(low=1),
        "secure": _secure,
        "same_site": word("Lax", "Strict", "None"),
    },
    _sticky,
    off=(None,),
    short=shaped(like(_type))(lambda spot: _noted(spot, StickyPolicy(type=_type(spot)))),
)

#: cookie or ip, or a section; null is none.
STICKY: Final = nullable_text(_SECTION)
