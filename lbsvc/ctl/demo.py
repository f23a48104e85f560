"""`lbctl demo-backend`: a server to try balancers with. It answers with its name, and is well or ill as one wishes.

Promises: `/health` answers at once, 200 or 503; POST or PUT to it with `up` or `down` switches it, and SIGUSR1 turns it
over. `/stats` tells of all requests but those two. Everything else is answered with the name, after the latency that was
asked for, or, for the share that was asked for, with 500. On TERM it takes no more connections, answers what it has
begun, `PATIENCE` at most, and exits 0. twisted.web serves it: it is no measure of anybody's speed. Called by main.py.
"""

from __future__ import annotations

import json
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import click
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.web.http import Request as WebRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from typing_extensions import override

from lbsvc.ctl.client import Failed
from lbsvc.ctl.params import PAUSE, SHARE
from lbsvc.ctl.session import json_option, the_session
from lbsvc.ctl.turning import the_reactor

#: How long requests may still take after TERM, in seconds.
PATIENCE: Final = 10.0
#: The longest body that `/health` reads.
_LONGEST: Final = 64

_WORDS: Final = {b"up": True, b"down": False}


class DemoBackend(Resource):
    """All paths of one such server. Seconds, and shares of 1."""

    isLeaf = True  # noqa: N815 - Twisted's name

    def __init__(
        self,
        name: str,
        clock: Any,
        rng: random.Random,
        *,
        latency: float = 0.0,
        jitter: float = 0.0,
        failures: float = 0.0,
    ) -> None:
        super().__init__()
        self.name = name
        self.is_up = True
        self.is_leaving = False
        self.active = 0
        self.requests = 0
        self.failed = 0
        self.gone = 0
        self.methods: Counter[str] = Counter()
        self._clock = clock
        self._rng = rng
        self._latency = latency
        self._jitter = jitter
        self._failures = failures
        self._since = clock.seconds()
        self._waiting: list[Deferred[None]] = []

    @override
    def render(self, request: Any) -> bytes | int:
        if self.is_leaving:
            request.setHeader(b"connection", b"close")
        if request.path == b"/health":
            return self._health(request)
        if request.path == b"/stats":
            return _answer(request, 200, json.dumps(self.stats()) + "\n", b"application/json")
        self.requests += 1
        self.active += 1
        self.methods[request.method.decode("ascii", "replace")] += 1
        is_ill = self._rng.random() < self._failures
        delay = max(0.0, self._latency + self._rng.uniform(-self._jitter, self._jitter))
        request.notifyFinish().addBoth(self._ended)
        if not delay:
            return self._speak(request, is_ill)
        timer = self._clock.callLater(delay, lambda: self._finish(request, is_ill))
        request.notifyFinish().addErrback(lambda reason: timer.cancel() if timer.active() else None)
        return NOT_DONE_YET

    def stats(self) -> dict[str, Any]:
        """What `/stats` says."""
        return {
            "name": self.name,
            "health": "up" if self.is_up else "down",
            "requests": self.requests,
            "failures": self.failed,
            "active": self.active,
            "gone": self.gone,
            "methods": dict(sorted(self.methods.items())),
            "uptime": round(self._clock.seconds() - self._since, 3),
        }

    def leave(self, patience: float = PATIENCE) -> Deferred[None]:
        """Take leave: fires when nothing is under way, or patience is over."""
        self.is_leaving = True
        self.is_up = False
        over: Deferred[None] = Deferred()
        if not self.active:
            over.callback(None)
            return over
        self._waiting.append(over)
        timer = self._clock.callLater(patience, self._release)
        return over.addBoth(lambda result: timer.cancel() if timer.active() else None)

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def _ended(self, reason: Any) -> None:
        self.active -= 1
        if reason is not None:
            self.gone += 1
        if not self.active:
            # In the next turn: the last answer is on its way by then.
            self._clock.callLater(0, self._release)

    def _finish(self, request: Any, is_ill: bool) -> None:
        request.write(self._speak(request, is_ill))
        request.finish()

    def _speak(self, request: Any, is_ill: bool) -> bytes:
        if is_ill:
            self.failed += 1
            return _answer(request, 500, f"{self.name}: fails on purpose\n")
        return _answer(request, 200, f"{self.name}\n")

    def _health(self, request: Any) -> bytes:
        if request.method in (b"POST", b"PUT"):
            word = request.content.read(_LONGEST).strip().lower()
            if word not in _WORDS:
                return _answer(request, 422, "send up or down\n")
            self.is_up = _WORDS[word]
            return _answer(request, 200, f"{word.decode()}\n")
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader(b"allow", b"GET, HEAD, POST, PUT")
            return _answer(request, 405, "ask by GET, switch by POST or PUT\n")
        return _answer(request, 200 if self.is_up else 503, "up\n" if self.is_up else "down\n")


def _answer(request: Any, status: int, text: str, kind: bytes = b"text/plain; charset=utf-8") -> bytes:
    body = text.encode("utf-8")
    request.setResponseCode(status)
    request.setHeader(b"content-type", kind)
    request.setHeader(b"content-length", b"%d" % len(body))
    return b"" if request.method == b"HEAD" else body


class DemoSite(Site):
    """Serves a DemoBackend; without a log, since nobody has asked for one."""

    displayTracebacks = False  # noqa: N815 - Twisted's name
    noisy = False

    @override
    def log(self, request: WebRequest) -> None:
        pass


def serve(
    reactor: Any,
    backend: Callable[[str], DemoBackend],
    host: str,
    port: int,
    name: str | None,
) -> tuple[DemoBackend, Any, int]:
    """Listen; without a name it is made of the port. The backend, Twisted's port, its number. Raises CannotListenError."""
    site = DemoSite(Resource())
    listening = reactor.listenTCP(port, site, interface=host, backlog=1024)
    number: int = listening.getHost().port
    site.resource = found = backend(name or f"demo-{number}")
    return found, listening, number


@click.command("demo-backend")
@click.option("--port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="0: any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--name", help="What it answers. [default: demo-PORT]")
@click.option("--latency", type=PAUSE, default=0.0, help="How long it takes to answer: 50ms. [default: 0s]")
@click.option("--jitter", type=PAUSE, default=0.0, help="So much more or less, evenly spread. [default: 0s]")
@click.option("--failures", type=SHARE, default=0.0, help="The share that is answered with 500: 10%. [default: 0%]")
@json_option
@click.pass_context
def command(
    ctx: click.Context, port: int, host: str, name: str | None, latency: float, jitter: float, failures: float
) -> None:
    """Serve HTTP and answer with a name: a backend to try things with.

    GET /health is 200 or 503; POST or PUT to it with `up` or `down` switches it, and so does the signal USR1. GET /stats
    tells of the requests so far. Everything else is answered with the name. TERM lets requests in flight finish.

    \b
      lbctl demo-backend --port 8001 --name a --latency 20ms --jitter 10ms --failures 5%
      curl -d down http://127.0.0.1:8001/health
    """
    reactor = the_reactor()

    def made(name: str) -> DemoBackend:
        chance = random.Random()
        return DemoBackend(name, reactor, chance, latency=latency, jitter=jitter, failures=failures)

    try:
        backend, listening, number = serve(reactor, made, host, port, name)
    except (CannotListenError, OSError, UnicodeError) as error:
        why = getattr(error, "socketError", error)
        raise Failed(f"cannot listen on {host}:{port}: {getattr(why, 'strerror', None) or why}") from None
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{number}/"
    the_session(ctx).line({"name": backend.name, "url": url, "port": number}, f"{backend.name}: {url}")
    sys.stdout.flush()

    def turned(number: int, frame: object) -> None:
        reactor.callFromThread(_turn, backend)

    def leave() -> Deferred[Any]:
        ended: Deferred[Any] = Deferred()
        stopped: Any = listening.stopListening()
        if stopped is None:
            return backend.leave()
        stopped.addBoth(lambda result: backend.leave()).chainDeferred(ended)
        return ended

    signal.signal(signal.SIGUSR1, turned)
    reactor.addSystemEventTrigger("before", "shutdown", leave)
    reactor.run()


def _turn(backend: DemoBackend) -> None:
    backend.is_up = not backend.is_up and not backend.is_leaving
