"""The end of a service under load: it is told to stop, and loses nothing that it has taken.

Promises: raises AssertionError where a request that was taken is neither answered nor cut with a reason, where the process
ends in another way than by its signal, or says that something went wrong. What may go unseen: a request that was sent on a
kept connection while that was closed (RFC 9112, 9.5). The arena is of no use afterwards. Used by soak.py.
"""

from __future__ import annotations

import json
import signal
from typing import Final

from tests.chaos.arena import Arena
from tests.chaos.books import Asked
from tests.chaos.judging import judge_answers, judge_backends
from tests.kit.processes import until

#: So many requests are over before it is told.
BEFORE: Final = 100


def end_service(arena: Arena) -> None:
    """SIGTERM under load."""
    books, service = arena.books, arena.service
    told = len(arena.complaints())
    aim = books.done + BEFORE
    arena.traffic.mood = "busy"
    arena.traffic.start(f"end {arena.seed}")
    try:
        until(lambda: books.done >= aim, "under load")
        books.is_ending = True
        service.signal(signal.SIGTERM)
        status = service.wait()
    finally:
        arena.traffic.stop()
    asked, _, nonsense = books.take()
    lines = [json.loads(line) for line in (arena.folder / "access.log").read_text().splitlines()]
    seen = {line["client"] if line["protocol"] == "tcp" else line["id"] for line in lines}
    due = [each for each in asked if (each.address or each.token) in seen or not _may_be_too_late(each)]
    problems = [
        *books.troubles,
        *judge_answers(due, lines, nonsense),
        *judge_backends(asked, {each.name: each.take_book() for each in arena.backends}),
        *arena.complaints()[told:],
    ]
    if status != -signal.SIGTERM:
        problems.append(f"it ended with {status}")
    if problems:
        raise AssertionError("\n".join([f"the end of seed {arena.seed}:", *problems[:30], "", service.report()]))


def _may_be_too_late(each: Asked) -> bool:
    """A kept connection may end as the next request is on its way; nothing of an answer has come then."""
    return each.was_kept and not each.status and not each.is_whole
