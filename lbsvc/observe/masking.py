"""Which parts of a query are secrets, and how they look in a log.

Promises: the value of every query parameter whose decoded, lower-cased name contains one of `SENSITIVE` leaves this
module as `***`; everything else leaves as it came. Called by observe/logformats.py for targets and for Referer. Pure;
takes and gives text that came from bytes by ASCII with backslash escapes, which is how JSON lines show it, or by Latin-1.

A `;` inside a pair may separate pairs for some backends: where that reading finds a sensitive name, everything up to
the next `&` is masked. What follows a `#` (a Referer made by hand) is read as a second query. A user and password
before a Referer's host are masked too.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_plus

#: contract.md, "Settled details".
SENSITIVE: Final = ("token", "key", "passw", "secret", "auth", "signature")

_IN_NAME: Final = re.compile("|".join(SENSITIVE))

#: What the escape of a byte above 0x7f looks like: read as a name, it is such a byte again.
_ESCAPED_BYTE: Final = re.compile(r"\\x([89a-f][0-9a-f])")

#: The same where it came by Latin-1.
_BYTES: Final = {number: f"%{number:02x}" for number in range(0x80, 0x100)}

_MASK: Final = "***"
#: A user and a password in front of a host.
_USERINFO: Final = re.compile(r"://[^/@]*@")


def masked(url: str) -> str:
    """A request target or URL with the values of sensitive query parameters replaced."""
    path, mark, query = url.partition("?")
    if "#" in path or not mark:  # a fragment that is before a `?`, or alone
        path, mark, query = url.partition("#")
    if "@" in path:
        path = _USERINFO.sub("://***@", path, 1)
    if not mark:
        return path
    # The common case in a fraction of a microsecond: no word to be seen, and nothing that could hide one.
    low = query.lower()
    if (
        "%" not in low
        and "\\" not in low
        and low.isascii()
        and "key" not in low
        and "token" not in low
        and "auth" not in low
        and "passw" not in low
        and "secret" not in low
        and "signature" not in low
    ):
        return path + mark + query
    return path + mark + "#".join([_masked_query(part) for part in query.split("#")])


def _masked_query(query: str) -> str:
    return "&".join([_masked_pair(pair) for pair in query.split("&")])


def _masked_pair(pair: str) -> str:
    """One `name=value`, or, where it is read so, several with `;` between them."""
    start = 0
    for piece in pair.split(";"):
        name, equals, _ = piece.partition("=")
        if equals and is_sensitive(name):
            return pair[: start + len(name) + 1] + _MASK
        start += len(piece) + 1
    return pair


def is_sensitive(name: str) -> bool:
    """Whether a parameter of this (encoded) name is a secret."""
    # The letters that lower-case to ASCII ones (the Kelvin sign) may have come as bare bytes.
    if "\\" in name:
        name = _ESCAPED_BYTE.sub(r"%\1", name)
    if not name.isascii():
        name = name.translate(_BYTES)
    return _IN_NAME.search(unquote_plus(name).lower()) is not None
