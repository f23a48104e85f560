"""What people call protocols, and what is meant by it here.

Promises: a protocol is read as one of the words that its key knows, and no other spelling is taken; who wrote another
name of one (http2, h1), or what another key says (h2c, grpc, https), is told what to write. Used by listeners.py, pools.py,
tls.py and addresses.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from lbsvc.config.shapes import one_of, shaped
from lbsvc.config.values import words
from lbsvc.config.walk import Spot

#: Names as they are met elsewhere, in lower case, by what they mean.
_NAMES: Final = {
    "h2": "h2 http/2 http2 http/2.0 http2.0 http-2 2 2.0 h2s http2s",
    "h2c": "h2c http2c http+h2c",
    "grpc": "grpc grpcs grpc-exp grpc+http2 grpc-web",
    "h1": "h1 http/1 http1 http/1.1 http1.1 http-1.1 http/1.x 1 1.1 http/1.0 http1.0 1.0 http",
    "h3": "h3 http/3 http3 http/3.0 quic 3",
    "tls": "https tls ssl",
    "ws": "ws wss websocket websockets",
    "auto": "alpn any both negotiate",
    "tcp": "tcp l4 stream raw tcp4 tcp6",
}
_FAMILIES: Final = {name: family for family, names in _NAMES.items() for name in names.split()}

#: What to say of a family where a listener's `protocol` is read.
_LISTENER: Final = {
    **dict.fromkeys(("h2", "h2c", "grpc", "h1", "ws"), "did you mean http? It is HTTP/1.1, HTTP/2, gRPC and WebSocket"),
    "h3": "HTTP/3 is not spoken",
    "tls": "did you mean http? TLS is a section of its own, tls",
    "auto": "did you mean http? It is HTTP/1.1, HTTP/2, gRPC and WebSocket",
    "tcp": "did you mean tcp?",
}
#: Where a pool's is.
_POOL: Final = {
    "h2": "did you mean h2?",
    "h2c": "HTTP/2 without TLS is said by h2c:// before an address",
    "grpc": "gRPC is HTTP/2: h2 for https:// addresses, and h2c:// before others",
    "h1": "did you mean http/1.1?",
    "h3": "HTTP/3 is not spoken",
    "tls": "TLS is said by https:// before an address",
    "ws": "did you mean http/1.1? WebSocket goes by that",
    "auto": "did you mean auto?",
    "tcp": "layer 4 is said by the listener: protocol: tcp",
}
#: Where the names are those of ALPN; of what is not here nothing is known.
_ALPN: Final = {
    "h2": "did you mean h2?",
    "h2c": "did you mean h2? That is HTTP/2 over TLS; without TLS it needs no key",
    "grpc": "did you mean h2? gRPC is HTTP/2",
    "h1": "did you mean http/1.1?",
    "h3": "HTTP/3 is not spoken",
    "tls": "did you mean http/1.1?",
    "ws": "did you mean http/1.1? WebSocket begins as that",
}
_REGISTERED: Final = ("h2", "http/1.1", "http/1.0")
#: Where a health check's type is.
_CHECK: Final = {
    **dict.fromkeys(("h2", "h2c", "h1", "tls"), "did you mean http? It is asked by the version and TLS of the address"),
    "grpc": "did you mean grpc?",
    "tcp": "did you mean tcp?",
}
#: What stands before an address.
_SCHEMES: Final = {
    "h2": "did you mean h2c://? HTTP/2 over TLS is https:// with protocol: h2",
    "h2c": "did you mean h2c://?",
    "grpc": "did you mean h2c://? gRPC over TLS is https:// with protocol: h2",
    "h1": "did you mean http://?",
    "h3": "HTTP/3 is not spoken",
    "tls": "did you mean https://?",
    "ws": "did you mean http://, or https:// for TLS? WebSocket begins as that",
    "tcp": "did you mean host:port? A tcp listener needs no scheme",
}


def _hint(name: str, hints: Mapping[str, str]) -> str:
    return hints.get(_FAMILIES.get(name.strip().lower().removesuffix("://"), ""), "")


def _reader(choices: tuple[str, ...], hints: Mapping[str, str]) -> Callable[[Spot], str]:
    @shaped(one_of(*choices))
    def read(spot: Spot) -> str:
        found = spot.text()
        if found not in choices:
            name = str(spot.value) if found is None else found  # 2 and 1.1 are numbers in YAML
            spot.refuse(f"must be {words(choices)}{spot.got(choices, _hint(name, hints))}")
        return found

    return read


#: Readers of `protocol` and of a check's `type`.
listener_protocol: Final = _reader(("http", "tcp"), _LISTENER)
pool_protocol: Final = _reader(("http/1.1", "auto", "h2"), _POOL)
check_type: Final = _reader(("http", "tcp", "grpc"), _CHECK)


def alpn_hint(name: str) -> tuple[str, bool]:
    """What was meant by a name in ALPN, for a message ("": not known), and whether it is HTTP by no name of ALPN's."""
    family = _FAMILIES.get(name.strip().lower())
    return _hint(name, _ALPN), family in ("h1", "h2") and name not in _REGISTERED


def scheme_hint(scheme: str) -> str:
    """What was probably meant before an address, for a message; "" where nothing is known of it."""
    return _hint(scheme, _SCHEMES)
