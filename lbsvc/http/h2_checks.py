"""Health checks that speak HTTP/2: those of gRPC (grpc.health.v1), and http ones of backends that speak nothing else.

Promises: those of net/checks.py. A check of type `grpc` asks for `service` by prior knowledge, or over TLS where that is
spoken to the backend (h2 alone is offered then, whatever the pool does), and passes if the answer is OK and SERVING. An http
check speaks HTTP/2 to an h2c:// backend, and over TLS what the backend has chosen by ALPN of what the pool offers. Made by
`check_for`, which app.py gives to net/prober.py.

The two messages of grpc.health.v1 (https://github.com/grpc/grpc/blob/master/doc/health-checking.md) are small enough to be
written and read here: a name as field 1, and a number as field 1.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from typing_extensions import override

from lbsvc.core.backend import Backend
from lbsvc.core.grpc_codes import GRPC_CODES
from lbsvc.core.policies import HealthCheckPolicy
from lbsvc.http.grpc import read_status
from lbsvc.http.h2_codec import Codec
from lbsvc.http.h2_frames import ConnectionFault
from lbsvc.http.h2_hpack import Pair
from lbsvc.http.h2_streams import Stream
from lbsvc.net.checks import LARGEST_BODY, LARGEST_HEAD, Check, Ended, HttpCheck
from lbsvc.net.checks import check_for as plain_check_for

_PATH: Final = b"/grpc.health.v1.Health/Check"
#: HealthCheckResponse.ServingStatus by number.
_SERVING: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


class _Offer:
    """A backend's ClientTls that may offer other protocols, and knows afterwards what was agreed on."""

    def __init__(self, words: Any, protocols: list[bytes]) -> None:
        self._words = words
        self._protocols = protocols
        self._link: Any = None

    def connection(self, skt: Any) -> Any:
        self._link = link = self._words.connection(skt)
        if self._protocols:
            link.set_alpn_protos(self._protocols)
        return link

    @property
    def agreed(self) -> bytes:
        """The protocol of ALPN, b"" for none."""
        found: bytes = self._link.get_alpn_proto_negotiated() if self._link is not None else b""
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._words, name)


class H2Check(HttpCheck):
    """A check that speaks HTTP/2 where the backend does; the codec calls its methods."""

    has_head = False  # the final head has come: for the codec, whose stream it owns

    def __init__(self, reactor: IReactorTime, policy: HealthCheckPolicy, backend: Backend, ended: Ended) -> None:
        super().__init__(reactor, policy, backend, ended)
        self._is_grpc = policy.type == "grpc"
        self._offer = _Offer(backend.tls, [b"h2"] if self._is_grpc else []) if backend.tls is not None else None
        self._codec: Codec | None = None  # once HTTP/2 is spoken
        self._stream: Stream | None = None
        self._grpc_status: bytes | None = None
        self._answered = 0  # the status of an answer that goes on

    @override
    def _tls_words(self) -> Any:
        return self._offer

    @property
    def _speaks_h2(self) -> bool:
        if self._offer is not None:
            return self._offer.agreed == b"h2"
        return self._is_grpc or self._backend.address.lower().startswith("h2c://")

    @override
    def _ask(self) -> None:
        if not self._speaks_h2:
            if self._is_grpc:
                self._end(False, "does not speak HTTP/2", clean=True)
            else:
                super()._ask()
            return
        policy = self._policy
        codec = self._codec = Codec(self, True, self._reactor.seconds, header_size=LARGEST_HEAD)
        method, path = (b"POST", _PATH) if self._is_grpc else (policy.method.encode(), policy.path.encode())
        fields = [
            (b":method", method),
            (b":scheme", b"https" if self._offer is not None else b"http"),
            (b":authority", self._authority().encode()),
            (b":path", path),
            (b"user-agent", b"lbsvc-check"),
        ]
        if self._is_grpc:
            timeout = b"%dm" % max(1, min(policy.timeout * 1000, 99_999_999))
            fields += [(b"content-type", b"application/grpc"), (b"te", b"trailers"), (b"grpc-timeout", timeout)]
            stream = codec.begin(fields, False)
            codec.send_data(stream, _request(policy.service), True)
        else:
            stream = codec.begin([*fields, (b"accept", b"*/*")], True)
        stream.owner = self
        self._stream = stream
        self._flush()

    def _flush(self) -> None:
        codec = self._codec
        if codec is not None and self.connected:
            self._transport().write(codec.take())

    @override
    def dataReceived(self, data: bytes) -> None:
        codec = self._codec
        if codec is None:
            super().dataReceived(data)
            return
        if self._ended is None:
            return
        try:
            codec.feed(data)
        except ConnectionFault as fault:
            codec.fail(fault)
            is_other = not self._received and data.startswith(b"HTTP/1.")
            self._end(False, "does not speak HTTP/2" if is_other else f"malformed answer ({fault.detail})")
            return
        self._received += len(data)
        if self._ended is None:
            return
        if self._whole or len(self._body) >= LARGEST_BODY:
            codec.go_away(True)
            self._flush()
            self._judge()
        else:
            self._flush()

    @override
    def _settle(self) -> Ended | None:
        self._codec = self._stream = None  # no cycle is left for the collector
        return super()._settle()

    @override
    def _lost(self, clean: bool) -> None:
        if self._codec is None:
            super()._lost(clean)
        elif self._answered:
            self._end(False, f"status {self._answered}, answer cut short")
        else:
            Check._lost(self, clean)

    # -- as the codec sees it

    def headers(self, stream: Stream, fields: list[Pair] | None, ended: bool) -> None:
        """A head; of an interim answer the final one follows."""
        said = dict(fields or ())
        status = said.get(b":status", b"")
        if len(status) != 3 or not status.isdigit() or not 100 <= int(status) <= 599:
            self._end(False, "malformed answer (no status)")
        elif int(status) >= 200:
            self._status = self._answered = int(status)
            self.has_head = True
            if ended:
                self._grpc_status = said.get(b"grpc-status")
                self._whole = True
        elif ended:
            self._end(False, "malformed answer (it ends before it begins)")

    def data(self, stream: Stream, data: bytes, ended: bool) -> None:
        """More of the body."""
        if self._codec is None:
            return
        self._codec.consume(stream, len(data))
        self.on_body(data)
        self._whole = ended

    def trailers(self, stream: Stream, fields: list[Pair] | None) -> None:
        """The end."""
        self._grpc_status = dict(fields or ()).get(b"grpc-status")
        self._whole = True

    def reset(self, stream: Stream, code: int, is_ours: bool) -> None:
        """There is no answer, or none that could be read."""
        if not self._whole:
            self._end(False, "malformed answer (HTTP/2)" if is_ours else f"the request was reset (code {code})")

    def drained(self, stream: Stream) -> None:
        """The request is small, and never waits."""

    def goaway(self, last: int, code: int) -> None:
        """What it has not looked at it will not answer."""
        if self._stream is not None and last < self._stream.id and not self._whole:
            self._end(False, f"the connection was ended (code {code})")

    def pong(self) -> None:
        """Nobody has asked."""

    @override
    def _judge(self) -> None:
        if not self._is_grpc:
            super()._judge()
            return
        code = read_status(self._grpc_status)
        if self._status != 200:
            self._end(False, f"status {self._status}", clean=True)
        elif code is None:
            self._end(False, "no grpc-status", clean=True)
        elif code:
            self._end(False, f"grpc-status {code} ({GRPC_CODES[code]})", clean=True)
        else:
            found = _read_answer(bytes(self._body))
            word = _SERVING[found] if found is not None and found < len(_SERVING) else None
            self._end(word == "SERVING", word or "malformed answer (no health in it)", clean=True)


def _request(service: str) -> bytes:
    """HealthCheckRequest, with its length before it."""
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\x00" + len(message).to_bytes(4, "big") + message


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*made, number))


def _read_answer(body: bytes) -> int | None:
    """The status of one HealthCheckResponse, which stands there alone and not compressed; None for anything else."""
    if len(body) < 5 or body[0] or int.from_bytes(body[1:5], "big") != len(body) - 5:
        return None
    found, at = 0, 5
    while at < len(body):
        key, at = _read_varint(body, at)
        kind = key & 7
        if kind == 0:
            value, at = _read_varint(body, at)
            if key >> 3 == 1:
                found = value
        elif kind == 2:
            size, at = _read_varint(body, at)
            at += size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            return None
    return found if at == len(body) and found >= 0 else None


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    """A number and what follows it; past the end where it has none."""
    value = shift = 0
    while at < len(body) and shift < 64:
        octet = body[at]
        at += 1
        value |= (octet & 0x7F) << shift
        shift += 7
        if octet < 0x80:
            return value, at
    return 0, len(body) + 1


def check_for(reactor: Any, policy: HealthCheckPolicy, backend: Backend, ended: Ended) -> Check:
    """The kind of check that the policy and the backend ask for."""
    is_h2 = policy.type == "grpc" or backend.tls is not None or backend.address.lower().startswith("h2c://")
    if policy.type == "tcp" or not is_h2:
        return plain_check_for(reactor, policy, backend, ended)
    return H2Check(reactor, policy, backend, ended)
