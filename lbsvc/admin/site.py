"""The admin listener: /livez, /readyz, /metrics, the API and the dashboard.

Promises: GET and HEAD on those three, whoever asks (admin/gate.py says what the rest needs); 405 with Allow for other
methods, 404 for other paths, both as problem+json; nothing here blocks, and nothing takes longer than a scrape's
slice (admin/metricspage.py), but for the status of very many backends. Bounds on sizes, times and connections:
admin/channel.py. What is under /api and /admin: admin/operations.py.

`make_site` gives a factory; the app listens with it, before the other listeners, and closes it last. When the last of its
ports closes, the streams of events end.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from typing_extensions import override

from lbsvc.admin.aliases import metrics_array
from lbsvc.admin.api import Api
from lbsvc.admin.channel import IDLE_TIMEOUT, AdminRequest, AdminSite
from lbsvc.admin.control import Control
from lbsvc.admin.gate import Gate, gate_for
from lbsvc.admin.metricspage import Rendering, negotiate, prefers_json
from lbsvc.admin.pages import Dashboard, Top
from lbsvc.admin.sampling import Sampling
from lbsvc.admin.streams import EventStreams, encode
from lbsvc.admin.tries import WAIT, Tries, peer_of
from lbsvc.config.schema import AdminSettings, Bind
from lbsvc.observe.events import Emit
from lbsvc.observe.exposition import slices
from lbsvc.observe.metrics import LbsvcCollector

#: Gives None when ready, else the reason in words.
Readiness = Callable[[], str | None]

_TEXT: Final = b"text/plain; charset=utf-8"


class Page(Resource):
    """Something to read: GET and HEAD at exactly one path."""

    isLeaf = True  # noqa: N815 - Twisted's name

    @override
    def render(self, request: AdminRequest) -> int:
        if request.postpath:
            request.fail(404, "there is nothing at this path")
        elif request.method not in (b"GET", b"HEAD"):
            request.fail(405, "this can only be read", ((b"Allow", b"GET, HEAD"),))
        else:
            self.show(request)
        return NOT_DONE_YET

    def show(self, request: AdminRequest) -> None:
        """Answer a request that has the right method."""
        raise NotImplementedError


class Livez(Page):
    """200 while the process runs."""

    @override
    def show(self, request: AdminRequest) -> None:
        request.answer(b"ok\n", _TEXT)


class Readyz(Page):
    """200, or 503 with the reason."""

    def __init__(self, ready: Readiness) -> None:
        super().__init__()
        self._ready = ready

    @override
    def show(self, request: AdminRequest) -> None:
        reason = self._ready()
        if reason is None:
            request.answer(b"ready\n", _TEXT)
        else:
            request.setResponseCode(503)
            request.answer(reason.encode("utf-8", "backslashreplace") + b"\n", _TEXT)


class Metrics(Page):
    """The page for Prometheus, and the array for scripts of the smaller balancers."""

    def __init__(self, clock: IReactorTime, collector: LbsvcCollector, control: Control | None) -> None:
        super().__init__()
        self._clock = clock
        self._collector = collector
        self._control = control

    @override
    def show(self, request: AdminRequest) -> None:
        if self._control is None:
            self._begin(request)
            return

        def failed(failure: Failure) -> None:
            if not failure.check(CancelledError):
                request.processingFailed(failure)

        fresh = self._control.fresh()
        request.notifyFinish().addErrback(lambda _: fresh.cancel())
        fresh.addCallback(lambda _: self._begin(request)).addErrback(failed)

    def _begin(self, request: AdminRequest) -> None:
        """The numbers are those of now."""
        accept = b",".join(request.requestHeaders.getRawHeaders(b"Accept", []))
        request.setHeader(b"Vary", b"Accept")
        if self._control is not None and prefers_json(accept.decode("latin-1")):
            request.answer(encode(metrics_array(self._control.status())), b"application/json")
            return
        content_type, openmetrics = negotiate(accept.decode("latin-1"))
        rendering = Rendering(
            self._clock,
            slices(self._collector, openmetrics),
            lambda page: request.answer(page, content_type.encode("ascii")),
            lambda: request.fail(500, "the metrics cannot be rendered; the event log says why"),
        )
        request.notifyFinish().addErrback(lambda _: rendering.stop())
        rendering.go_on()


class Missing(Page):
    """Everything else."""

    @override
    def render(self, request: AdminRequest) -> int:
        request.fail(404, "there is nothing at this path")
        return NOT_DONE_YET


class Root(Resource):
    """The top of the tree; what it does not know is missing."""

    @override
    def getChild(self, path: bytes, request: object) -> Resource:
        return Missing()


class GuardedSite(AdminSite):
    """A site whose gate is asked first."""

    def __init__(
        self,
        resource: Resource,
        gate: Gate,
        reactor: IReactorTime,
        streams: EventStreams | None = None,
        sampling: Sampling | None = None,
        emit: Emit | None = None,
    ) -> None:
        super().__init__(resource, timeout=IDLE_TIMEOUT, reactor=reactor, parsePOSTFormSubmission=False)
        self.gate = gate
        self.streams = streams
        self.sampling = sampling
        self.tries = Tries(reactor.seconds, emit or _unheard)

    @property
    @override
    def asks_for_token(self) -> bool:
        return bool(self.gate.token)

    def obeys(self, settings: AdminSettings) -> bool:
        """Are these the rules that it goes by? (Whether it is read-only is looked up with each change.)"""
        return self.gate == _gate(settings)

    def obey(self, settings: AdminSettings) -> None:
        """Go by these rules with the next request; streams that began by others end, and may come again."""
        former, self.gate = self.gate, _gate(settings).after(self.gate)
        if former.token != self.gate.token:
            self.tries.forget()
        if self.streams is not None:
            self.streams.close()
            self.streams.open()

    @override
    def startFactory(self) -> None:
        if self.streams is not None:
            self.streams.open()
        if self.sampling is not None:
            self.sampling.start()

    @override
    def stopFactory(self) -> None:
        """Nobody listens any more: who still watches is let go."""
        if self.streams is not None:
            self.streams.close()
        if self.sampling is not None:
            self.sampling.stop()

    @override
    def judge(self, request: AdminRequest) -> tuple[int, str, tuple[tuple[bytes, bytes], ...]] | None:
        headers = request.requestHeaders
        authorizations = headers.getRawHeaders(b"Authorization", [])
        cookies = headers.getRawHeaders(b"Cookie", [])
        if (authorizations or cookies) and self.gate.asks_at(request.path):
            wait = self._try(peer_of(request.getClientAddress(), request.channel.transport), authorizations, cookies)
            if wait:
                return 429, WAIT, ((b"Retry-After", b"%d" % wait),)
        refusal = self.gate.refusal(
            request.path,
            headers.getRawHeaders(b"Host", []),
            headers.getRawHeaders(b"Origin", []),
            authorizations,
            request.method,
            headers.getRawHeaders(b"Sec-Fetch-Site", []),
            cookies,
        )
        return None if refusal is None else (refusal.status, refusal.detail, refusal.headers)

    def _try(self, peer: str, authorizations: Sequence[bytes], cookies: Sequence[bytes]) -> int:
        """Seconds that whoever shows these has to wait; 0: they count for what they are. Cookies never wait."""
        gate, tries = self.gate, self.tries
        wait = tries.wait(peer) if authorizations else 0
        if wait:
            return wait
        if gate.is_shown(authorizations) if authorizations else gate.is_signed_in(cookies):
            if gate.is_long:
                tries.passed(peer)
        elif authorizations:
            tries.failed(peer, b"\0".join(authorizations))
        return 0


def _gate(settings: AdminSettings) -> Gate:
    return gate_for(settings.bind.host, settings.hosts, settings.token, place_of(settings.bind))


def place_of(bind: Bind) -> str:
    """What tells an admin listener from those that a browser reaches by the same host, through tunnels, say."""
    return f"{socket.gethostname()} {bind}"


def make_site(
    reactor: IReactorTime,
    collector: LbsvcCollector,
    ready: Readiness,
    bind_host: str = "127.0.0.1",
    hosts: Iterable[str] = (),
    token: str = "",
    control: Control | None = None,
    emit: Emit | None = None,
    stamp: str | None = None,
    place: str = "",
) -> GuardedSite:
    """The factory for the admin listener; without `control` it has no API. `emit` is the event log, `stamp` what tells the
    entity tags of this process from those of others: None makes one; `place` is `place_of` its bind."""
    root = Root()
    root.putChild(b"livez", Livez())
    root.putChild(b"readyz", Readyz(ready))
    root.putChild(b"metrics", Metrics(reactor, collector, control))
    streams = sampling = None
    if control is not None:
        sampling = Sampling(reactor, control)
        streams = EventStreams(reactor, control)
        api = Api(reactor, control, streams, emit or _unheard, stamp)
        root.putChild(b"api", api)
        root.putChild(b"admin", api)
        root.putChild(b"dashboard", Dashboard(control))
        root.putChild(b"", Top(control))
    return GuardedSite(root, gate_for(bind_host, hosts, token, place), reactor, streams, sampling, emit)


def _unheard(level: str, event: str, message: str, **fields: Any) -> None:
    """Where there is no event log."""
