"""What is asked, and of whom: a URL and options to the bytes of a request and an address to dial.

Promises: a `Target` is a lawful HTTP/1.1 request whose framing is ours, and who is to be dialled; what cannot be one is
refused with `Unusable`, whose text says what would. Names are looked up once, by `resolve`, before the reactor runs.
Called by request.py; load.py sends it.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from lbsvc import __version__
from lbsvc.errors import LbsvcError

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")
#: What frames a message, or says whether its connection stays: that is ours to say.
_OURS: Final = ("connection", "content-length", "transfer-encoding", "upgrade", "expect", "te", "trailer", "keep-alive")
_PORTS: Final = {"http": 80, "https": 443}
#: What may stand in a request target as it is; all else is percent-encoded.
_SAFE: Final = "/?:@!$&'()*+,;=-._~%[]"
#: Seconds to find out which address of a name answers.
_PATIENCE: Final = 1.0


class Unusable(LbsvcError):
    """No request can be made of this."""


class Unresolvable(LbsvcError):
    """The name of whom to ask has no address."""


@dataclass(frozen=True)
class Target:
    """Whom to ask (an IP literal, a name, or the path of a unix socket; then the port is 0), by which request."""

    url: str
    host: str
    port: int
    is_secure: bool
    method: bytes
    request: bytes  # head and body
    name: str  # the host that a certificate must be for


def make_target(
    url: str,
    *,
    method: str | None = None,
    headers: Iterable[str] = (),
    body: bytes | None = None,
    unix_socket: str | None = None,
    is_kept: bool = True,
) -> Target:
    """A request to `url`; `headers` are `Name: value`. Raises Unusable."""
    if url.startswith("unix:"):  # as configurations write backends
        if unix_socket is not None:
            raise Unusable("--unix-socket means nothing where the URL is a socket")
        unix_socket, shown, url = url.removeprefix("unix:"), url, "http://localhost/"
    else:
        shown = url = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise Unusable(f"is no URL: {error}") from None
    if parts.scheme not in _PORTS or not host:
        raise Unusable("must be http://host[:port]/path, https://host[:port]/path or unix:PATH")
    if parts.username is not None or parts.password is not None:
        raise Unusable("cannot have a user name or password: -H 'Authorization: …' sends one")
    if port == 0:
        raise Unusable("needs a port from 1 to 65535")
    if unix_socket is not None and (not unix_socket or "\0" in unix_socket):
        raise Unusable("needs the path of a socket")
    method = method or ("GET" if body is None else "POST")
    if not _TOKEN.fullmatch(method):
        raise Unusable("the method must be one word")
    if method == "CONNECT":
        raise Unusable("CONNECT asks for a tunnel, which is no request that could be counted")
    fields = [_field(line) for line in headers]
    names = {name.lower() for name, _ in fields}
    authority = _authority(host, port, parts.scheme)
    path = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
    lines = [f"{method} {path} HTTP/1.1"]
    if "host" not in names:
        lines.append(f"Host: {authority}")
    if "user-agent" not in names:
        lines.append(f"User-Agent: lbctl/{__version__}")
    if "accept" not in names:
        lines.append("Accept: */*")
    lines += [f"{name}: {value}" for name, value in fields]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    if not is_kept:
        lines.append("Connection: close")
    head = "\r\n".join([*lines, "", ""])
    return Target(
        shown,
        unix_socket if unix_socket is not None else host,
        0 if unix_socket is not None else port or _PORTS[parts.scheme],
        parts.scheme == "https",
        method.encode("ascii"),
        head.encode("utf-8") + (body or b""),
        host,
    )


def _authority(host: str, port: int | None, scheme: str) -> str:
    try:
        name = host.encode("ascii").decode() if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        raise Unusable("has a host that is no host name") from None
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+", name):
        raise Unusable("has a host that is no host name")
    shown = f"[{name.partition('%')[0]}]" if ":" in name else name
    return shown if port in (None, _PORTS[scheme]) else f"{shown}:{port}"


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not _TOKEN.fullmatch(name):
        raise Unusable("a header must be 'Name: value'")
    if name.lower() in _OURS:
        raise Unusable(f"the header {name} is set by us, so that requests can be told apart")
    value = value.strip()
    if not _VALUE.fullmatch(value):
        raise Unusable(f"the value of the header {name} has control characters")
    return name, value


def resolve(
    host: str,
    port: int,
    look_up: Callable[..., Any] = socket.getaddrinfo,
    connect: Callable[..., Any] = socket.create_connection,
) -> str:
    """An IP literal of `host` (or the path that it is): where there are several, the first that accepts a connection.

    So `localhost` works whichever of its two addresses somebody listens on. Raises Unresolvable.
    """
    if port == 0:
        return host
    try:
        found = look_up(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unresolvable(f"{host}: {getattr(error, 'strerror', None) or error}") from None
    addresses = list(dict.fromkeys(_literal(entry[4]) for entry in found))
    for address in addresses if len(addresses) > 1 else ():
        try:
            connect((address, port), _PATIENCE).close()
        except OSError:
            continue
        return address
    return addresses[0]  # where nobody answers at any of them, each request says what is wrong


def _literal(sockaddr: Any) -> str:
    host: str = sockaddr[0]
    if len(sockaddr) == 4 and sockaddr[3] and "%" not in host:
        return f"{host}%{sockaddr[3]}"
    return host
