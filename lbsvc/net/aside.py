"""Work that takes long, beside the reactor, in a thread that nobody waits for when the process ends.

Promises: the function runs at once, in a thread of its own; what came of it is told in the reactor's thread, or to nobody
where the reactor has stopped meanwhile. The process may end while it runs. (The reactor's own pool is joined when it stops:
what runs there holds up the end of the process for as long as it takes.) How many run at one time is for the caller to
bound. Used by app.py for the files of a reload, and by controlling.py for configurations that come in a request.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

T = TypeVar("T")


def run_aside(reactor: IReactorFromThreads, function: Callable[[], T]) -> Deferred[T]:
    """What the function gives or raises. Cancelled, it goes on, and what comes of it is dropped."""
    done: Deferred[T] = Deferred()

    def tell(result: T | Failure) -> None:
        if isinstance(result, Failure):
            done.errback(result)
        else:
            done.callback(result)

    def work() -> None:
        result: T | Failure
        try:
            result = function()
        except BaseException:
            result = Failure()
        with suppress(OSError):  # the reactor has gone, and what would wake it with it
            reactor.callFromThread(tell, result)

    Thread(target=work, name="lbsvc aside", daemon=True).start()
    return done
