"""A worker as a row of plain values, for people (`Worker` in admin/schemas.py).

Promises: what it carries by its last report, what it costs by what the system says of it now; a small file or two are read.
Called by workers/crew.py. Seconds, bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from lbsvc.observe.usage import cpu_seconds, resident_bytes
from lbsvc.workers.member import SERVING, Member
from lbsvc.workers.reports import ListenerReport

#: So many questions without an answer, a second apart, and it is said to hang.
HUNG: Final = 3


def row(member: Member, restarts: int, now: float, listeners: Iterable[ListenerReport]) -> dict[str, Any]:
    """One worker: `restarts` is how often one in its place died or hung, `listeners` what it has told last of each."""
    found = list(listeners)
    is_hung = member.state == SERVING and member.unanswered >= HUNG
    return {
        "worker": member.place,
        "pid": member.pid,
        "state": "hung" if is_hung else member.state,
        "uptime": round(now - member.born, 3),
        "restarts": restarts,
        "connections": sum(each.open for each in found),
        "requests": sum(_requests(each) for each in found),
        "cpu_seconds": cpu_seconds(member.pid),
        "resident_bytes": resident_bytes(member.pid),
    }


def _requests(listener: ListenerReport) -> int:
    """That have ended; of tcp listeners, connections."""
    return sum(listener.terminations.values()) if listener.protocol == "tcp" else int(listener.counts[3])
