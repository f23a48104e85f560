"""Cookies by name in requests, and the one that `sticky: cookie` sets (RFC 6265; core/affinity.py says what is in it).

Promises: a request's Cookie fields are read as browsers and most servers read them (5.4 backwards: pairs between semicolons,
space around names and values does not count, names have case, quotes belong to the value, a pair without `=` has no name),
over several fields as HTTP/2 sends them. What is taken out leaves all other bytes as they came, in their order, and no
empty field behind. The work is linear in the bytes of the fields, whatever is in them. A Set-Cookie line is lawful, and
one that browsers keep. Called by the road for each request of a pool with `sticky: cookie` or `hash_key: cookie:NAME`. Pure.

Why all values of a name, not only the first: a browser sends cookies with longer paths first, and any sibling domain can
set one with our name for a domain above us. Who reads a digest asks for each of them whether it is ours; they are few, or
only the first few count. Who needs one value takes the first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from email.utils import formatdate
from typing import Final

from lbsvc.core.policies import StickyPolicy
from lbsvc.http.fields import is_token
from lbsvc.http.messages import Field

__all__ = ["Cookie", "StickyCookie"]

#: Values of one name that are looked at. Each may cost a digest; browsers send two of a name, rarely three.
MOST_VALUES: Final = 8

_COOKIE: Final = b"cookie"
_LINE: Final = re.compile(rb"^(cookie:[ \t]*)([^\r\n]*)\r\n", re.IGNORECASE | re.MULTILINE)
_SPACE: Final = b" \t"
#: Browsers keep cookies whose names begin so only where they are Secure (RFC 6265bis, 4.1.3). The other conditions, no
#: Domain and Path=/, ours meets.
_SECURE_NAMES: Final = ("__secure-", "__host-")
#: The last second that dates have words for: the end of the year 9999.
_LAST_SECOND: Final = 253402300799


class Cookie:
    """A cookie of requests, by its name (a token; ValueError for any other)."""

    __slots__ = ("_pair", "name")

    def __init__(self, name: str) -> None:
        self.name = name.encode("utf-8", "replace")
        if not is_token(self.name):
            raise ValueError("a cookie's name that is no token")
        # Each semicolon is looked at once, and what follows it up to the next: no backing up. Begun with a semicolon, where
        # `re` looks for one byte, it takes a tenth of what an alternative with the beginning would (see `_pairs`).
        self._pair = re.compile(rb";[ \t]*+%b[ \t]*+=([^;]*)" % re.escape(self.name))

    def values(self, fields: Iterable[Field]) -> list[bytes]:
        """Its values in the fields of a section, as they came, in order; the first few if there are many."""
        name, found = self.name, list[bytes]()
        for field in fields:
            if field[0] == _COOKIE and name in field[1]:
                found += self._pair.findall(_pairs(field[1]))
        return [value.strip(_SPACE) for value in found[:MOST_VALUES]]

    def value(self, fields: Iterable[Field]) -> bytes | None:
        """Its first value; None where there is none. An empty one is b""."""
        found = self.values(fields)
        return found[0] if found else None

    def without(self, lines: bytes) -> bytes:
        """Header lines (`Name: value`, each with its CRLF) without it, however often it is there; all else as it is."""
        return _LINE.sub(self._taken_out, lines) if self.name in lines else lines

    def _taken_out(self, line: re.Match[bytes]) -> bytes:
        kept, number = self._pair.subn(b"", _pairs(line[2]))
        if not number:
            return line[0]
        kept = kept[1:].lstrip(_SPACE)
        return b"%b%b\r\n" % (line[1], kept) if kept.strip(b"; \t") else b""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name.decode('ascii')}>"


def _pairs(value: bytes) -> bytes:
    """A Cookie field's value so that each of its pairs has a semicolon before it."""
    return b";" + value


class StickyCookie(Cookie):
    """The cookie that a pool's clients are given: for all paths, for this host only, out of reach of scripts."""

    __slots__ = ("_age", "_attributes", "_scope", "_second", "_secure")

    def __init__(self, policy: StickyPolicy) -> None:
        super().__init__(policy.cookie)
        if policy.same_site not in ("Lax", "Strict", "None"):
            raise ValueError("a SameSite that is neither Lax, Strict nor None")
        self._age = math.ceil(policy.ttl)
        self._scope = b"; Path=/; HttpOnly; SameSite=%b; Max-Age=%d; Expires=" % (policy.same_site.encode(), self._age)
        #: None: as the request came. What a browser would not keep otherwise is Secure in any case: over plain HTTP that
        #: loses nothing, and behind somebody else's TLS it is what is needed.
        self._secure = {"true": True, "false": False}.get(policy.secure)
        if self._secure is None and (policy.same_site == "None" or policy.cookie.lower().startswith(_SECURE_NAMES)):
            self._secure = True
        #: the attributes as they were made last, and in which second
        self._second = -1
        self._attributes = b""

    def line(self, value: bytes, is_secure: bool, now: float) -> bytes:
        """The Set-Cookie line with its CRLF. `is_secure`: the client came over TLS; `now`: wall clock.

        `value` is one of CookieTable.value_of: nothing in it needs quotes.
        """
        second = int(now)
        if second != self._second:
            # Expires too, for clients older than Max-Age (and features.md, ST-1); where both are known Max-Age counts.
            self._attributes = self._scope + formatdate(min(second + self._age, _LAST_SECOND), usegmt=True).encode()
            self._second = second
        secure = b"; Secure" if (is_secure if self._secure is None else self._secure) else b""
        return b"Set-Cookie: %b=%b%b%b\r\n" % (self.name, value, self._attributes, secure)
