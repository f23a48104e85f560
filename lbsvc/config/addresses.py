"""Where to listen and where backends are: binds and addresses, read strictly.

Promises: a host is an IP literal in its shortest form or a lower-case host name, a port is a number in its range; or the
host is the absolute path of a unix socket, which the kernel can take, and the port 0. A path that is written relative is
relative to the folder of the configuration file; or (binds) it is "systemd:NAME", which no socket address looks like.
https:// means TLS, and port 443 where none is written; h2c:// means HTTP/2 without TLS, and port 80. `overlap` says
whether two binds would fight for a port, a path or a socket that was passed. The parsers raise `AddressError` and never
repeat what they were given, for it may come out of a variable. Used by listeners.py, pools.py, service.py and checks.py.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Final

from lbsvc.config.protocols import scheme_hint
from lbsvc.config.schema import BackendSettings, Bind
from lbsvc.config.shapes import either, fitting, shaped
from lbsvc.config.values import text
from lbsvc.config.walk import Spot

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DNS: Final = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}\.?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
#: What may stand before a backend's host, and the port that is meant where none is written.
_SCHEMES: Final = {"http": "80", "https": "443", "h2c": "80"}
_UNIX: Final = "unix:"
SYSTEMD: Final = "systemd:"
#: What FileDescriptorName= may be (systemd's fdname_is_valid), without spaces around it.
_PASSED: Final = re.compile(r"[\x21-\x39\x3b-\x7e](?:[\x20-\x39\x3b-\x7e]{0,253}[\x21-\x39\x3b-\x7e])?")
# As much of the forms as an editor is told.
_BIND: Final = re.compile(r"(?:systemd|unix):.+|.*:[0-9]{1,5}|[0-9]{1,5}")
_ADDRESS: Final = re.compile(r"unix:.+|[A-Za-z0-9]+://[^@]+|[^@]+:[0-9]{1,5}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
#: The longest path that a unix socket can have, in bytes (`sun_path` less its final NUL).
LONGEST_PATH: Final = 107


class AddressError(ValueError):
    """What is wrong with an address: "must be …", "needs …"."""


def parse_host(text: str) -> str:
    """An IPv4 address, or a host name, in lower case. (IPv6 stands in brackets; see split_port.)"""
    host = text.lower()
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        pass
    name = host.removesuffix(".")
    if not host or len(name) > 253 or not _DNS.fullmatch(host):
        raise AddressError("has a host that is neither an IP address nor a host name")
    if name.rpartition(".")[2].isdigit():
        raise AddressError("has a host that is no valid IPv4 address")
    return host


def split_port(text: str) -> tuple[str, str | None]:
    """Host and port text of host:port or [v6]:port; the host is checked, the port None where there is none."""
    if text.startswith("["):
        inside, closed, rest = text[1:].partition("]")
        try:
            host = str(ipaddress.IPv6Address(inside.lower()))
        except ValueError:
            raise AddressError("has no valid IPv6 address between [ and ]") from None
        if not closed or (rest and not rest.startswith(":")):
            raise AddressError("needs the form [IPv6]:port")
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        raise AddressError("needs brackets around an IPv6 address, as in [::1]:8080")
    name, colon, port = text.partition(":")
    return (parse_host(name) if name else ""), port if colon else None


def parse_port(text: str, low: int) -> int:
    if not _PORT.fullmatch(text) or not low <= int(text) <= 65535:
        raise AddressError(f"needs a port from {low} to 65535")
    return int(text)


def parse_path(text: str, folder: str) -> str:
    """The absolute path of unix:PATH; a relative one is relative to `folder`."""
    path = text[len(_UNIX) :]
    slashes = len(path) - len(path.lstrip("/"))
    if not path or path.endswith("/") or slashes == 2:  # unix:///run/lb.sock is a URL's way of saying it
        raise AddressError("needs the path of a socket, as in unix:run/lb.sock")
    if _CONTROL.search(path):
        raise AddressError("has a path with control characters")
    path = os.path.abspath(os.path.join(folder, "/" * bool(slashes) + path[slashes:]))
    try:
        size = len(os.fsencode(path))
    except UnicodeEncodeError:
        raise AddressError("has a path that no file can have") from None
    if size > LONGEST_PATH:
        raise AddressError(f"has a path of {size} bytes, counted from /: a unix socket's has {LONGEST_PATH} at most")
    return path


def parse_passed(text: str) -> Bind:
    """systemd:NAME: the sockets that systemd passes under this name."""
    name = text.removeprefix(SYSTEMD)
    if not name:
        raise AddressError("needs the name of a socket, as in systemd:web (FileDescriptorName= in the .socket unit)")
    if not _PASSED.fullmatch(name):
        what = "a socket's name is 1 to 255 visible ASCII characters without :, as FileDescriptorName= takes it"
        raise AddressError(f"has a name that systemd cannot pass: {what}")
    return Bind(SYSTEMD + name, 0)


def parse_bind(text: str) -> Bind:
    """host:port, ":8080" (both families), "[::1]:443", or a port alone; or systemd:NAME."""
    if text.startswith(SYSTEMD):
        return parse_passed(text)
    if text.isdigit() and text.isascii():
        text = f":{text}"
    host, port = split_port(text.removeprefix("*") if text.startswith("*:") else text)
    if port is None:
        raise AddressError("needs a port, as in 127.0.0.1:8080 or :8080")
    return Bind(host, parse_port(port, 0))


def parse_address(text: str) -> tuple[str, int, str]:
    """Host, port and scheme of a backend: host:port or [v6]:port (scheme ""), or http, https or h2c://host[:port]."""
    scheme, slashes, rest = text.partition("://")
    if not slashes:
        host, port = split_port(text)
        if host and port is None:
            raise AddressError("needs a port, as in 10.0.0.1:8001")
    else:
        usual = _SCHEMES.get(scheme.lower())
        if usual is None:
            raise AddressError("must be host:port, http://host:port, https://host:port, h2c://host:port or unix:PATH")
        rest = rest.removesuffix("/")
        if "/" in rest or "?" in rest or "#" in rest:
            raise AddressError("cannot have a path or query: requests keep their own")
        host, port = split_port(rest)
        port = usual if port is None else port
    if not host:
        raise AddressError("needs a host, as in 10.0.0.1:8001")
    return host, parse_port(port or "", 1), scheme.lower() if slashes else ""


@shaped(either(fitting(_BIND), {"type": "integer", "minimum": 0, "maximum": 65535}))
def bind(spot: Spot) -> Bind:
    """A reader of one place to listen."""
    value = spot.value
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= 65535:
            spot.expect("host:port, or a port from 0 to 65535")
        return Bind("", value)
    found = text(spot)
    try:
        return Bind(parse_path(found, _folder(spot)), 0) if found.startswith(_UNIX) else parse_bind(found)
    except AddressError as error:
        spot.refuse(f"{error}{spot.got()}")


def _folder(spot: Spot) -> str:
    return os.path.dirname(spot.walk.filename)


@shaped(fitting(_ADDRESS))
def address(spot: Spot) -> BackendSettings:
    """A reader of a backend's address; the rest of the settings are the defaults."""
    found = text(spot)
    is_path = found.startswith(_UNIX)
    if "@" in found and not is_path:  # what comes before it may be a password: not shown
        spot.refuse("cannot have a user name or password")
    try:
        host, port, scheme = (parse_path(found, _folder(spot)), 0, "") if is_path else parse_address(found)
    except AddressError as error:
        scheme, mark, _ = found.partition("://")
        spot.refuse(f"{error}{spot.got((), scheme_hint(scheme) if mark and scheme.lower() not in _SCHEMES else '')}")
    return BackendSettings(found, host, port, found, is_h2c=scheme == "h2c", is_secure=scheme == "https")


def is_loopback(host: str) -> bool:
    """Whether a bind's host can be reached from this machine alone, as a unix socket can."""
    if host == "localhost" or host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def overlap(one: Bind, other: Bind) -> bool:
    """Whether both cannot be had: the same path or passed name, or the same port of an address, or of a wildcard around it.

    Port 0 is whatever is free. [::] is IPv6 alone, so it goes beside 0.0.0.0; an empty host is both.
    """
    if any(bind.host.startswith("/") or bind.passed_as is not None for bind in (one, other)):
        return one.host == other.host
    if one.port != other.port or one.port == 0:
        return False
    return any(_covers(a, b) or _covers(b, a) for a in hosts_of(one.host) for b in hosts_of(other.host))


def hosts_of(host: str) -> tuple[str, ...]:
    """The addresses that a bind's host stands for."""
    if host == "":
        return ("0.0.0.0", "::")
    return ("127.0.0.1", "::1") if host == "localhost" else (host,)


def _covers(wide: str, narrow: str) -> bool:
    if wide == narrow:
        return True
    if wide == "0.0.0.0":
        return ":" not in narrow
    return wide == "::" and (":" in narrow or not narrow[:1].isdigit())
