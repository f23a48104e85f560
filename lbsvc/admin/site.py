"""The admin listener: /livez, /readyz and /metrics; the place where the API and the dashboard will hang.

Promises: GET and HEAD on those three, whoever asks (admin/gate.py says what the rest needs); 405 with Allow for other
methods, 404 for other paths, both as problem+json; nothing here blocks, and nothing takes longer than a scrape's
slice (admin/metricspage.py). Bounds on sizes, times and connections: admin/channel.py.

`make_site` gives a factory; app.py listens with it, before the other listeners, and closes it last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from typing_extensions import override

from lbsvc.admin.channel import IDLE_TIMEOUT, AdminRequest, AdminSite
from lbsvc.admin.gate import Gate, gate_for
from lbsvc.admin.metricspage import Rendering, negotiate
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
    """The page for Prometheus."""

    def __init__(self, clock: IReactorTime, collector: LbsvcCollector) -> None:
        super().__init__()
        self._clock = clock
        self._collector = collector

    @override
    def show(self, request: AdminRequest) -> None:
        accept = b",".join(request.requestHeaders.getRawHeaders(b"Accept", []))
        content_type, openmetrics = negotiate(accept.decode("latin-1"))
        request.setHeader(b"Vary", b"Accept")
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

    def __init__(self, resource: Resource, gate: Gate, reactor: IReactorTime) -> None:
        super().__init__(resource, timeout=IDLE_TIMEOUT, reactor=reactor, parsePOSTFormSubmission=False)
        self.gate = gate

    @override
    def judge(self, request: AdminRequest) -> tuple[int, str, tuple[tuple[bytes, bytes], ...]] | None:
        headers = request.requestHeaders
        refusal = self.gate.refusal(
            request.path,
            headers.getRawHeaders(b"Host", []),
            headers.getRawHeaders(b"Origin", []),
            headers.getRawHeaders(b"Authorization", []),
        )
        return None if refusal is None else (refusal.status, refusal.detail, refusal.headers)


def make_site(
    reactor: IReactorTime,
    collector: LbsvcCollector,
    ready: Readiness,
    bind_host: str = "127.0.0.1",
    hosts: Iterable[str] = (),
    token: str = "",
) -> GuardedSite:
    """The factory for the admin listener."""
    root = Root()
    root.putChild(b"livez", Livez())
    root.putChild(b"readyz", Readyz(ready))
    root.putChild(b"metrics", Metrics(reactor, collector))
    return GuardedSite(root, gate_for(bind_host, hosts, token), reactor)
