"""The resource that answers /api and /admin: from a request to a view of the table, and from what came of it to an answer.

Promises: each request is read strictly (path, query, body), held against If-Match and read_only, answered once, and, where
it has changed something, logged as `admin.change` with who asked. Every refusal is a problem+json with the status that
contract.md has for it; 405 says what is allowed, HEAD is GET without a body, OPTIONS is 204. A change that takes a while is
held against If-Match twice, when it comes and when it is worked out; it goes on when whoever asked has gone, and is logged
then too. Who may ask at all was settled before (gate.py). Used by site.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from secrets import token_hex
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from typing_extensions import override

from lbsvc.admin import openapi
from lbsvc.admin.bodies import Malformed, Unfit, matches, read_path, read_query
from lbsvc.admin.calls import Answer, Call, Refused, first
from lbsvc.admin.channel import AdminRequest
from lbsvc.admin.checking import Busy, Checks
from lbsvc.admin.control import Control, Failed, Impossible, Look, Underway, anyhow
from lbsvc.admin.operations import OPERATIONS, Operation, Table
from lbsvc.admin.streams import EventStreams, encode
from lbsvc.admin.tries import user_of
from lbsvc.config import overlay
from lbsvc.errors import ConfigErrors, Stopping, SystemRefusal
from lbsvc.observe.events import Emit

#: What a view may raise, in the order in which it is looked at.
_KNOWN: Final = (
    Refused, Malformed, Unfit, Busy, Underway, Impossible, Failed, ConfigErrors, SystemRefusal,
    overlay.Unknown, overlay.Exists, overlay.Wrong,
)  # fmt: skip
#: Of those that say all in their words; the others are 422.
_STATUSES: Final = {
    Malformed: 400, overlay.Unknown: 404, overlay.Exists: 409, Underway: 409, Impossible: 409, Failed: 500
}  # fmt: skip
#: How many mistakes a problem's detail says; all stand in its errors.
_SAID: Final = 5
#: How many changes stand in an event; the answer says all.
_MOST: Final = 20
_READ_ONLY: Final = "the admin interface is read-only (admin.read_only)"


class Api(Resource):
    """Every operation of the table, and the OpenAPI file, which is made of it."""

    isLeaf = True  # noqa: N815 - Twisted's name
    _log = Logger()

    def __init__(
        self, clock: IReactorTime, control: Control, streams: EventStreams, emit: Emit, stamp: str | None = None
    ) -> None:
        super().__init__()
        #: of this process: revisions begin anew with each, and no tag of another one may match
        self._stamp = stamp or token_hex(6)
        self._control = control
        self._streams = streams
        self._emit = emit
        self._checks = Checks(clock, lambda text: control.check(text))
        itself = Operation(
            "GET", openapi.PATH, "describe", "This file.", lambda call: Answer(self._file(call)), {"type": "object"}
        )
        self._operations = (*OPERATIONS, itself)
        self._table = Table(self._operations)

    def _file(self, call: Call) -> object:
        return openapi.document(self._operations, call.request.site.asks_for_token)

    @override
    def render(self, request: AdminRequest) -> int:
        try:
            self._answer(request)
        except _KNOWN as error:
            refuse(request, error)
        return NOT_DONE_YET

    def _answer(self, request: AdminRequest) -> None:
        operations, names = self._table.find(read_path(request.path))
        if not operations:
            raise Refused(404, "there is nothing at this path")
        allowed = _allowed(operations)
        if request.method == b"OPTIONS":
            request.setHeader(b"Allow", allowed)
            request.setResponseCode(204)
            request.finish()
            return
        method = "GET" if request.method == b"HEAD" else request.method.decode("latin-1")
        operation = operations.get(method)
        if operation is None:
            raise Refused(405, f"only {allowed.decode()} can be done here", ((b"Allow", allowed),))
        self._run(operation, self._call(operation, request, names))

    def _call(self, operation: Operation, request: AdminRequest, names: Mapping[str, str]) -> Call:
        settings = self._control.settings()
        if operation.is_change and settings.admin is not None and settings.admin.read_only:
            raise Refused(403, _READ_ONLY)
        query = read_query(request.uri.partition(b"?")[2], [name for name, _, _ in operation.query])
        if operation.body is not None:
            for coding in request.requestHeaders.getRawHeaders(b"Content-Encoding", []):
                if coding.strip().lower() not in (b"", b"identity"):
                    raise Refused(415, "a body is read as it comes, without any coding",
                                  ((b"Accept-Encoding", b"identity"),))  # fmt: skip
        tags = request.requestHeaders.getRawHeaders(b"If-Match", [])
        look: Look = anyhow
        revisions: list[int] = []
        if operation.is_tagged:
            look = partial(self._look, tags, names["pool"], revisions)
            look()
        assert request.content is not None
        request.content.seek(0)
        body, who = request.content.read(), asker(request)
        return Call(self._control, self._streams, self._checks, request, who, names, query, body, look, revisions)

    def _look(self, tags: Sequence[bytes], pool: str, revisions: list[int]) -> None:
        """Is the pool as the request has it? One that is not there is missed elsewhere."""
        if pool in self._control.settings().pools:
            tag = self._tag(pool)
            revisions.append(self._control.revision(pool))
            if tags and not matches(tags, tag):
                raise Refused(412, "the pool is at another revision than If-Match says", ((b"ETag", tag.encode()),))

    def _tag(self, pool: str) -> str:
        """The entity tag of a pool."""
        return f'"{self._stamp}-{self._control.revision(pool)}"'

    def _run(self, operation: Operation, call: Call) -> None:
        answer: Any  # Answer, a Deferred of one, or None
        if operation.is_fresh:
            answer = self._control.fresh().addCallback(lambda _: operation.view(call))
        else:
            answer = operation.view(call)
        if isinstance(answer, Deferred):
            gone: list[Failure] = []

            def left(reason: Failure) -> None:
                gone.append(reason)
                if not (operation.is_change and operation.is_left_alone):
                    answer.cancel()

            call.request.notifyFinish().addErrback(left)
            answer.addCallback(lambda found: self._give(operation, call, found, bool(gone)))
            answer.addErrback(lambda failure: self._failed(operation, call.request, failure, bool(gone)))
        elif answer is not None:
            self._give(operation, call, answer, False)

    def _give(self, operation: Operation, call: Call, answer: Answer, is_gone: bool) -> None:
        told = answer.told
        if told is not None:
            self._emit(
                "info", "admin.change", f"{told.words}, by {call.who}", by=call.who, call=operation.name,
                pool=told.pool, backend=told.backend, changes=list(told.changes[:_MOST]),
            )  # fmt: skip
        if is_gone:
            return
        request = call.request
        request.setResponseCode(answer.status)
        for name, value in answer.headers:
            request.setHeader(name, value)
        if answer.pool is not None and self._is_ours(answer.pool, call, answer):
            request.setHeader(b"ETag", self._tag(answer.pool).encode())
        body = answer.body if isinstance(answer.body, bytes) else encode(answer.body)
        request.answer(body, answer.content_type)

    def _is_ours(self, pool: str, call: Call, answer: Answer) -> bool:
        """Is the pool what this call has shown, or made of it? Of another change behind its own it gets no tag."""
        if pool not in self._control.settings().pools:
            return False
        if not call.revisions:
            return True
        has_changed = answer.told is not None and bool(answer.told.changes)
        return self._control.revision(pool) <= call.revisions[-1] + has_changed

    def _failed(self, operation: Operation, request: AdminRequest, failure: Failure, is_gone: bool) -> None:
        error = failure.value
        if is_gone:
            if not isinstance(error, (*_KNOWN, CancelledError)):
                self._log.failure("admin request failed", failure=failure)
        elif isinstance(error, _KNOWN):
            refuse(request, error, operation.refused)
        else:
            request.processingFailed(failure)


def _allowed(operations: Mapping[str, Operation]) -> bytes:
    methods = [*operations, *(["HEAD"] if "GET" in operations else []), "OPTIONS"]
    return ", ".join(methods).encode()


def asker(request: AdminRequest) -> str:
    """Who asks: the connection's peer, of a unix socket the user that the kernel names, and whether the token was shown."""
    peer = request.getClientAddress()
    if isinstance(peer, IPv6Address):
        who = f"[{peer.host}]:{peer.port}"
    elif isinstance(peer, IPv4Address):
        who = f"{peer.host}:{peer.port}"
    else:
        who = f"unix, user {user_of(request.channel.transport)}"
    return f"{who} (token)" if request.site.asks_for_token else who


def refuse(request: AdminRequest, error: Exception, refused: int = 500) -> None:
    """Answer what a view has raised; `refused` is the status of what the system refuses."""
    if isinstance(error, Refused):
        request.fail(error.status, error.detail, error.headers)
    elif isinstance(error, Busy):
        request.fail(503, str(error), ((b"Retry-After", b"5"),))
    elif isinstance(error, ConfigErrors | SystemRefusal):
        status = 422 if isinstance(error, ConfigErrors) else 503 if isinstance(error, Stopping) else refused
        refuse_with(request, status, error)
    else:
        status = next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), 422)
        request.fail(status, str(error))


def refuse_with(request: AdminRequest, status: int, error: ConfigErrors | SystemRefusal) -> None:
    """Answer with every mistake."""
    errors = first([str(mistake) for mistake in error.mistakes])
    said = "; ".join([*errors[:_SAID], *(["…"] if len(errors) > _SAID else [])])
    request.fail(status, f"nothing has changed: {said}", errors=errors)
