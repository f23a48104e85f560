"""The call that shows the last hour: GET /api/v1/history.

Promises: plain values out of the rings of observe/history.py, a slice of each column; `after` asks only for what has come
since, so that a page that stays open asks for little; whoever asks for the first time waits for the workers' numbers of now.
A view of operations.py.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred

from lbsvc.admin.bodies import Malformed, Unfit
from lbsvc.admin.calls import Answer, Call
from lbsvc.observe.history import LEAST, SPAN

#: What a page shows of backends.
USUAL: Final = 600


def show_history(call: Call) -> Answer | Deferred[Answer]:
    if "after" in call.query:
        return _history(call)
    return call.control.fresh().addCallback(lambda _: _history(call))


def _history(call: Call) -> Answer:
    history = call.control.history
    seconds = _number(call, "seconds", USUAL, 1, SPAN)
    after = _number(call, "after", -1, 0, 10**12)
    of = call.query.get("of", "all")
    if of not in ("all", "pools"):
        raise Malformed("of: must be all or pools")
    begin = max(after, history.tick - seconds)
    found: dict[str, Any] = {
        "tick": history.tick,
        "begin": begin,
        "least_us": LEAST,
        "total": history.total(begin),
        "listeners": list(history.listeners(begin)),
        "pools": list(history.pools(begin)),
        "backends": list(history.backends(begin, only_new=after >= 0)) if of == "all" else [],
        "left_out": history.left_out,
    }
    if after < 0:
        found["events"] = history.events
        found["reload"] = history.reloaded
    return Answer(found)


def _number(call: Call, key: str, otherwise: int, low: int, high: int) -> int:
    written = call.query.get(key)
    if written is None:
        return otherwise
    if not written.isascii() or not written.isdigit() or len(written) > 13:
        raise Unfit(f"{key}: must be a whole number")
    if not low <= int(written) <= high:
        raise Unfit(f"{key}: must be {low} to {high}")
    return int(written)
