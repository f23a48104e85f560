"""gRPC on its way through: a call's own deadline, our errors in the words of gRPC, and the status that it ends with.

Promises: a request of HTTP/2 whose Content-Type is application/grpc (alone, with a suffix such as +proto, or parameters) is
a `Call`, and each other one an ordinary Exchange; grpc-web is none, since its clients read another form of answer.

- What we answer ourselves is a whole answer of gRPC ("Trailers-Only": status 200, grpc-status, grpc-message), by
  STATUSES below. That is gRPC's own table for HTTP statuses (doc/http-grpc-status-mapping.md), but where our reason
  says more than a status does: deadlines are DEADLINE_EXCEEDED, limits RESOURCE_EXHAUSTED. The access log has 200,
  and our reason as ever.
- An answer of gRPC that has begun and cannot be finished ends with trailers that say why, by the same tables.
- grpc-timeout ends the exchange when it is over, as a route's `timeout` does; the shorter of the two holds. One that
  cannot be read says nothing. A deadline of a client's own choice never counts against a backend. A request that goes
  out later than STALE behind its arrival (another try, a queue, a slow dial) says what is left of it; where nothing is
  left it does not go out.
- `retry.when` with codes is about answers that are trailers alone: nothing of them has gone down. Calls are POSTs,
  all of them, and whoever lists a code has said that they may be made again: `retry.methods` is not asked. The body
  has to be whole still, and attempts and budget count as ever.
- The grpc-status of an answer is noted for log and metrics; one that is no code that gRPC knows is UNKNOWN, as it
  says there.
- A call whose client gives it up, or goes, is noted as CANCELLED: nobody has told it anything. Where its grpc-timeout was
  over by then, or within EARLY of it, that is why: DEADLINE_EXCEEDED, as its client has it. The reason stays
  `client_closed`.
- For guards and the counts of a backend a code is the HTTP status that Envoy takes it for, as far as it says that the
  backend failed: UNKNOWN, INTERNAL and DATA_LOSS are 500, UNAVAILABLE is 503. Those that a client can bring about as
  it likes (UNIMPLEMENTED, DEADLINE_EXCEEDED) are not: nobody shall open circuits by asking for nonsense. The others
  are answers.

Decision (2026-11): such trailers are sent even in the middle of a message, where Envoy and nginx reset the stream.
grpcio (1.85, tried) and grpc-java (by its source) then drop the piece and report our status; grpc-go (the same) says
INTERNAL, which is what all of them make of a reset. Without us between they would report UNAVAILABLE, which is what
clients try again; nobody can take the piece for a message, since its length stands before it, nor the call for one that
went well. It asks for no look at messages on their way. Two ends stay resets: those that the backend has sent with a
code of its own (CANCEL, ENHANCE_YOUR_CALM), for which gRPC has statuses, and those of answers with a Content-Length,
which trailers would belie.

Made by h2_requests.py, called like any exchange. Timeouts are seconds.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import override

from lbsvc.core.backend import Outcome
from lbsvc.core.grpc_codes import GRPC_CODES
from lbsvc.errors import REASONS
from lbsvc.http import h2_frames as wire
from lbsvc.http.exchange import Exchange
from lbsvc.http.forwarding import request_head
from lbsvc.http.messages import UNSAID, RequestHead, ResponseHead
from lbsvc.http.responses import make_head, message_of

if TYPE_CHECKING:
    from lbsvc.http.either import DownstreamSide, UpstreamSide

_CODE: Final = {name: number for number, name in enumerate(GRPC_CODES)}
_UNKNOWN: Final = _CODE["unknown"]

#: Reason word -> what a client of gRPC is told.
REASON_CODES: Final = {
    "deadline": _CODE["deadline_exceeded"],
    "idle_timeout": _CODE["unavailable"],
    "upstream_timeout": _CODE["deadline_exceeded"],
    "client_timeout": _CODE["deadline_exceeded"],
    "too_large": _CODE["resource_exhausted"],
    "rate_limited": _CODE["resource_exhausted"],
    "retry_budget": _CODE["unavailable"],
}
#: Status -> the same, where the reason says nothing else.
STATUS_CODES: Final = {
    400: _CODE["internal"],
    401: _CODE["unauthenticated"],
    403: _CODE["permission_denied"],
    404: _CODE["unimplemented"],
    413: _CODE["resource_exhausted"],
    429: _CODE["resource_exhausted"],
    431: _CODE["resource_exhausted"],
    501: _CODE["unimplemented"],
    502: _CODE["unavailable"],
    503: _CODE["unavailable"],
    504: _CODE["unavailable"],
}
#: Code -> the HTTP status that it counts as for a backend that has answered so.
COUNTED: Final = {_CODE["unknown"]: 500, _CODE["internal"]: 500, _CODE["data_loss"]: 500, _CODE["unavailable"]: 503}
#: What a backend has reset its stream with, that its client is told too -> what the client takes it for.
RESET_CODES: Final = {wire.CANCEL: _CODE["cancelled"], wire.ENHANCE_YOUR_CALM: _CODE["resource_exhausted"]}
#: Reason word -> what is said of it where the answer has begun, if that is something else.
LATE_MESSAGES: Final = {
    "idle_timeout": "The backend has said nothing for as long as a stream may be silent.",
    "upstream_reset": "The backend gave up in the middle of its answer.",
    "upstream_timeout": "The backend stood still in the middle of its answer.",
}

#: Seconds of a grpc-timeout that may be gone when it is passed on as it came: no more than a network's own delays.
STALE: Final = 0.001
#: Seconds before the end of a grpc-timeout, by our clock, from which on a client gives up because of it.
EARLY: Final = 0.005
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
#: How many of each make an hour, all of them exact numbers.
_UNITS: Final = {b"H": 1, b"M": 60, b"S": 3600, b"m": 3600e3, b"u": 3600e6, b"n": 3600e9}
_STATUS: Final = re.compile(rb"grpc-status:[ \t]*([^\r\n]*)", re.IGNORECASE)
#: What grpc-message may hold as it is: visible ASCII and space, but for the percent sign.
_QUOTED: Final = re.compile(r"[^ -$&-~]")


def is_call(head: RequestHead) -> bool:
    """Whether a request is one of gRPC."""
    if head.method != b"POST" or head.protocol != "HTTP/2":
        return False
    return _is_grpc(head.section.get(b"content-type"))


def _is_grpc(kind: bytes | None) -> bool:
    if kind is None or kind[:16].lower() != b"application/grpc":
        return False
    return kind[16:17] in (b"", b"+", b";", b" ", b"\t")


def read_timeout(value: bytes) -> float | None:
    """The seconds of a grpc-timeout; None where it is none."""
    found = _TIMEOUT.fullmatch(value)
    return int(found[1]) * 3600.0 / _UNITS[found[2]] if found else None


def write_timeout(seconds: float) -> bytes:
    """A grpc-timeout in the finest unit that has room for it, rounded up; never none at all."""
    for unit, each in reversed(_UNITS.items()):
        number = max(1, math.ceil(seconds * each / 3600.0))
        if number < 10**8:
            return b"%d%b" % (number, unit)
    return b"99999999H"


def read_status(value: bytes | None) -> int | None:
    """The code of a grpc-status; None where there is none, UNKNOWN for what gRPC does not know."""
    if value is None:
        return None
    value = value.strip(b" \t")
    if not 1 <= len(value) <= 3 or not value.isdigit():
        return _UNKNOWN
    return int(value) if int(value) < len(GRPC_CODES) else _UNKNOWN


def status_in(trailers: bytes) -> int | None:
    """The same of trailers, as lines."""
    found = None
    for line in trailers.split(b"\r\n"):
        found = _STATUS.match(line) or found
    return read_status(found[1]) if found else None


def code_for(status: int, reason: str) -> int:
    """What a client of gRPC is told in place of an error of ours."""
    found = REASON_CODES.get(reason)
    return found if found is not None else STATUS_CODES.get(status, _UNKNOWN)


def _message(reason: str, message: str) -> str:
    text = f"{reason}: {message}"
    return _QUOTED.sub(lambda char: "".join(f"%{octet:02X}" for octet in char[0].encode()), text)


def error_head(code: int, reason: str, detail: str = "") -> ResponseHead:
    """An answer that is trailers alone."""
    message = _message(reason, message_of(reason, detail))
    head = make_head(
        200,
        [("content-type", "application/grpc"), ("grpc-status", str(code)), ("grpc-message", message)],
        0,
    )
    head.section.body = UNSAID  # there is no content of which a length could be told
    return head


class Call(Exchange):
    """One call of gRPC on its way."""

    is_stream = True  # from its beginning: either side may be silent for as long as the listener's `idle` allows
    _sent = 0  # the status, while another one stands for it
    _said = b""  # the grpc-timeout
    _patience: float | None = None  # the same in seconds, if it can be read
    _begun: ResponseHead | None = None  # that of an answer whose end has yet to come

    @override
    def start(self, body: bytes, ended: bool, trailers: bytes) -> None:
        said = self.head.section.get(b"grpc-timeout")
        timeout = read_timeout(said) if said is not None else None
        if said is not None and timeout is not None:
            self._said, self._patience = said, timeout
            self.is_hurried = True
            super().limit(timeout)
        super().start(body, ended, trailers)

    @override
    def choose(self) -> None:
        patience = self._patience
        if patience is not None and (not patience or self.attempts) and self.site.seconds() - self.began >= patience:
            self.refuse(504, "deadline")
        else:
            super().choose()

    @override
    def send(self, connection: UpstreamSide, now: float) -> None:
        patience = self._patience
        gone = self.site.seconds() - self.began if patience is not None else 0.0  # `now` is `began` for a first try
        if patience is not None and gone >= patience:
            connection.end(True)  # nothing was said on it
            self.refuse(504, "deadline")
            return
        if patience is None or gone <= STALE:
            super().send(connection, now)
            return
        # Its client's clock has run on: no backend shall work for longer than somebody waits. Heads are not changed, and
        # this one has to be whole for another try.
        head, lease = self.head, self.lease
        assert lease is not None
        start = head.forward or request_head(head, self.connection, lease.backend, self.destination)
        left = write_timeout(patience - gone)
        self.head = head.copy()
        self.head.forward = start.replace(
            b"\r\ngrpc-timeout: %b\r\n" % self._said, b"\r\ngrpc-timeout: %b\r\n" % left, 1
        )
        try:
            super().send(connection, now)
        finally:
            self.head = head

    @override
    def limit(self, timeout: float) -> None:
        # A route's: it holds where it is the shorter one, and then it is ours, and the backend's business.
        if self.site.deadlines.after(timeout) <= self._due:
            self.is_hurried = False
            super().limit(timeout)

    @override
    def response(self, head: ResponseHead, body: bytes, ended: bool, trailers: bytes) -> None:
        if ended:
            self.grpc_status = code = status_in(trailers) if trailers else read_status(head.section.get(b"grpc-status"))
            is_alone = not trailers and not body and head.status == 200
            name = GRPC_CODES[code] if code else ""
            if is_alone and name in self.upstreams.settings.retry.when and self.is_tried_again(head, ended, name):
                self.grpc_status = None
                return
        else:
            self._begun = head
        super().response(head, body, ended, trailers)

    @override
    def response_body(self, body: bytes, ended: bool, trailers: bytes) -> None:
        if ended:
            self.grpc_status = status_in(trailers)
        super().response_body(body, ended, trailers)

    @override
    def judge(self, status: int) -> int:
        return COUNTED.get(self.grpc_status or 0, status) if status == 200 else status

    @override
    def complete(self, now: float) -> None:
        # The lease is given back with what the call counts as; what the client was sent is what is settled.
        self._sent, self.status = self.status, self.judge(self.status)
        super().complete(now)

    @override
    def settle(self, now: float) -> None:
        if self._sent:
            self.status = self._sent
        super().settle(now)

    @override
    def refuse(self, status: int, reason: str, detail: str = "", retry_after: int = 0) -> None:
        if self.responded:
            super().refuse(status, reason, detail, retry_after)
            return
        self.reason = reason
        self.let_go(Outcome.ABANDONED)
        self.grpc_status = code = code_for(status, reason)
        self.answer(error_head(code, reason, detail), b"")

    @override
    def client_gone(self, reason: str = "client_closed") -> None:
        if reason == "client_closed" and not self.is_over:
            patience = self._patience
            is_late = patience is not None and self.site.seconds() - self.began >= patience - EARLY
            self.grpc_status = _CODE["deadline_exceeded" if is_late else "cancelled"]
        super().client_gone(reason)

    @override
    def break_off(self) -> None:
        section = self._begun.section if self._begun is not None and self._begun.status == 200 else None
        if section is None or section.body >= 0 or not _is_grpc(section.get(b"content-type")):
            super().break_off()  # for a client of gRPC this says all by its own status
            return
        self.grpc_status = code = RESET_CODES.get(self.reset_code)
        if code is not None:
            super().break_off()
            return
        reason = self.reason
        self.grpc_status = code = code_for(REASONS[reason], reason)
        message = _message(reason, LATE_MESSAGES.get(reason) or message_of(reason))
        trailers = b"grpc-status: %d\r\ngrpc-message: %b\r\n" % (code, message.encode())
        connection: Any = self.connection
        connection.send_body(self, b"", True, trailers)
        try:
            self.settle(self.site.seconds())
        finally:
            connection.exchange_over(self)


def exchange_for(connection: DownstreamSide, head: RequestHead, now: float) -> Exchange:
    """What a request is."""
    return (Call if is_call(head) else Exchange)(connection, head, now)
