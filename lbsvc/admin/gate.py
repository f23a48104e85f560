"""Who may ask the admin listener what: Host, Origin, token and site, before any resource is looked up.

Promises: /livez, /readyz and /metrics are open to whoever reaches the listener; everything else needs a Host that is
ours (no DNS rebinding), no foreign Origin, and, where a token is set, that token, compared in constant time, or, of the
dashboard's, the cookie of whoever has shown it; the dashboard's own files need neither, nor does "/", which leads there.
What may change something needs besides a token, or a browser's word that no other site asks (Sec-Fetch-Site), or to come
from no browser at all. Pure: headers in, a refusal or None out. Called by admin/site.py; how often a token may be wrong is
for tries.py to say.

Cookies need no such limit, since there is nothing to try: a gate signs them with `key`, random bytes that it draws itself
and that leave it no other way. Neither name nor value of a cookie says anything of a token, of any token; both are known
only to whoever has shown the right one. Everybody is signed out when the process ends or the token changes.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from lbsvc.config.service import LONG_TOKEN

#: What needs neither token nor a known Host.
OPEN: Final = frozenset({b"/livez", b"/readyz", b"/metrics"})

#: Where the dashboard is: its files hold nothing secret, and whoever has no token yet must be asked for it somewhere.
PAGES: Final = b"/dashboard/"
TOP: Final = b"/"

#: Bytes that a cookie is signed with.
_KEY_SIZE: Final = 32

#: Methods that change nothing.
SAFE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})

#: Values of Sec-Fetch-Site that no other site can have caused: the user's own doing, and pages of ours.
_OURS: Final = frozenset({b"none", b"same-origin"})

_WILDCARDS: Final = ("", "0.0.0.0", "::")


@dataclass(frozen=True)
class Refusal:
    """What to answer instead."""

    status: int
    detail: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True)
class Gate:
    """The rules of one admin listener."""

    bind_host: str  # as bound; "" for every address, "/…" for a unix socket
    hosts: frozenset[str] = frozenset()  # further names, lower-case
    token: bytes = field(default=b"", repr=False)  # b"": none is asked for
    place: str = ""  # what tells this service from the others that a browser knows by the same host
    key: bytes = field(default_factory=lambda: secrets.token_bytes(_KEY_SIZE), repr=False, compare=False)

    def refusal(
        self,
        path: bytes,
        hosts: Sequence[bytes],
        origins: Sequence[bytes] = (),
        authorizations: Sequence[bytes] = (),
        method: bytes = b"GET",
        sites: Sequence[bytes] = (),
        cookies: Sequence[bytes] = (),
    ) -> Refusal | None:
        """Why a request for `path` with these values of Host, Origin, Authorization, Sec-Fetch-Site and Cookie does not
        pass."""
        if path in OPEN:
            return None
        if len(hosts) != 1:
            return Refusal(400, "exactly one Host header is needed")
        if not self.knows(hosts[0]):
            return Refusal(421, "this Host is not served here (admin.hosts)")
        for origin in origins:
            if origin.lower() not in (b"http://" + hosts[0].lower(), b"https://" + hosts[0].lower()):
                return Refusal(403, "requests from another origin are refused")
        shows_token = self.is_shown(authorizations)
        is_page = path == TOP or path.startswith(PAGES)
        is_open = not self.token or is_page or (not authorizations and self.is_signed_in(cookies))
        if not shows_token and not is_open:
            challenge = b'Bearer realm="lbsvc"' + (b', error="invalid_token"' if authorizations else b"")
            return Refusal(401, "a bearer token is needed", ((b"WWW-Authenticate", challenge),))
        if method not in SAFE and not shows_token and not self._is_ours(sites, origins):
            return Refusal(403, "changes from a page need a token, or a browser that says Sec-Fetch-Site: same-origin")
        return None

    @staticmethod
    def _is_ours(sites: Sequence[bytes], origins: Sequence[bytes]) -> bool:
        return _OURS.issuperset(site.strip().lower() for site in sites) if sites else not origins

    @property
    def cookie(self) -> tuple[bytes, bytes]:
        """Name and value of the cookie of whoever has shown the token. The name is another for another service, since
        browsers keep cookies by host and not by port, and stays when this one starts anew, so that they do not gather."""
        value = hmac.new(self.key, self.token, hashlib.sha256).hexdigest().encode()
        place = hashlib.sha256(self.place.encode("utf-8", "surrogateescape")).hexdigest()
        return f"lbsvc_{place[:12]}".encode(), value

    @property
    def is_long(self) -> bool:
        """Is the token too long to be found by trying, as far as its length can tell?"""
        return len(self.token) >= LONG_TOKEN

    def asks_at(self, path: bytes) -> bool:
        """Does anything depend on a token there?"""
        return bool(self.token) and path not in OPEN

    def is_token(self, token: bytes) -> bool:
        """Is it the token? Digests of one length: the comparison tells nothing, not even how long the token is."""
        given, wanted = hashlib.sha256(token).digest(), hashlib.sha256(self.token).digest()
        return bool(self.token) and hmac.compare_digest(given, wanted)

    def is_signed_in(self, cookies: Sequence[bytes]) -> bool:
        """Is it the cookie that these values of Cookie have under its name? The first of them is looked at, no other."""
        wanted, value = self.cookie
        for pair in b";".join(cookies).split(b";"):
            name, _, given = pair.strip().partition(b"=")
            if name == wanted:
                return bool(self.token) and hmac.compare_digest(given, value)
        return False

    def after(self, former: Gate) -> Gate:
        """The same rules, when they follow on others: who is signed in stays so, unless the token is another one."""
        return replace(self, key=former.key) if self.token == former.token else self

    def knows(self, host: bytes) -> bool:
        """Whether this Host header names us."""
        name = host_name(host)
        if name is None:
            return False
        if name == "localhost" or name in self.hosts:
            return True
        address = _address(name)
        if address is None:
            return name == self.bind_host.lower()
        # Nobody can rebind a literal. On a unix socket it is the address of whatever forwards to it (ssh -L, a proxy).
        is_any = self.bind_host in _WILDCARDS or self.bind_host.startswith("/")
        return is_any or address == _address(self.bind_host)

    def is_shown(self, authorizations: Sequence[bytes]) -> bool:
        """Do these values of Authorization show the token?"""
        if len(authorizations) != 1:
            return False
        scheme, _, token = authorizations[0].partition(b" ")
        return self.is_token(token.strip()) and scheme.lower() == b"bearer"


def gate_for(bind_host: str, hosts: Iterable[str], token: str, place: str = "") -> Gate:
    """A gate from the settings of `admin`; `hosts` may carry ports and any case."""
    names = (host_name(host.encode("utf-8")) for host in hosts)
    return Gate(bind_host, frozenset(name for name in names if name), token.encode("utf-8"), place)


def host_name(host: bytes) -> str | None:
    """The name in a Host header: lower-case, without port (which may be empty), brackets and trailing dot; None where there
    is none."""
    try:
        text = host.decode("ascii").strip().lower()
    except UnicodeDecodeError:
        return None
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        if not bracket or (port and not (port[0] == ":" and (port == ":" or port[1:].isdigit()))):
            return None
        return name or None
    name, _, port = text.partition(":")
    if port and not port.isdigit():
        # More than one colon: an address that should have had brackets. It is nobody's port.
        return text if _address(text) is not None else None
    return name.removesuffix(".") or None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
