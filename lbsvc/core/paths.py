"""The one meaning of a path: its normal form, in which routes are matched. The path itself is forwarded as it came.

Promises: two paths that RFC 3986 section 6.2.2 calls equivalent have the same normal form; the normal form of a normal
form is itself; a path that a backend may read in another way than we do is a ProtocolViolation (400), so that no route
(and later no `deny`) can be walked around. Called by the roads, once a request, unless no route asks for a path.
Bytes in, bytes out; pure.

The rules, and where two readings are possible:

- Percent-escapes of unreserved characters are decoded, hexadecimal digits of the others are made upper-case
  (6.2.2.1, 6.2.2.2). An escape that is none, and %00, are refused: some readers stop there.
- Dot segments are removed (6.2.2.3), written out or escaped. One that climbs above the root is refused: it is an
  attack or a mistake, and readers differ in what is left of it.
- Empty segments collapse: `//v1` must not walk around a route on `/v1`, for many readers collapse them. Where `..`
  would take away an empty segment the result depends on who collapses first: refused.
- `%2F` and `%5C` are data inside a segment and stay escaped. Where reading them as separators would bring out a dot
  segment (`..%2fadmin`), decoding before or after makes a difference: refused. So is a bare backslash, which some
  readers take for a slash, and a dot segment with parameters (`..;x`), which some take for a dot segment.
- Where readers who decode them, or who drop parameters (`/admin;x`), would be led to another route, whoever matches refuses
  the path (`other_readings`). Double escapes (`%252e`) are data: they are decoded once, by whom they are meant for.
- UTF-8 in more bytes than it takes (`%C0%AE`) is refused: it is no text, but some decoders make a dot or a slash of it.
"""

from __future__ import annotations

import re
from typing import Final

from lbsvc.errors import ProtocolViolation

#: What a path without any of these is already: its own normal form. One search for nearly every request.
_SUSPECT: Final = re.compile(rb"%|//|/\.|\\|\A[^/]")

_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})?")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_OVERLONG: Final = re.compile(rb"%C[01]%[89AB]|%E0%[89]|%F0%8")
_SEPARATOR_INSIDE: Final = re.compile(rb"%2F|%5C")
_DOTS: Final = (b".", b"..")


def normal_path(target: bytes) -> bytes:
    """The normal form of a path in origin-form, without its query."""
    if _SUSPECT.search(target) is None:
        return target or b"/"
    if not target.startswith(b"/"):
        raise ProtocolViolation(400, "the path does not begin with a slash")
    if b"\\" in target:
        raise ProtocolViolation(400, "backslash in the path")
    path = _ESCAPE.sub(_normal_escape, target)
    if _OVERLONG.search(path) is not None:
        raise ProtocolViolation(400, "overlong UTF-8 in the path")
    return _without_dots(path)


def _normal_escape(match: re.Match[bytes]) -> bytes:
    digits = match[1]
    if digits is None:
        raise ProtocolViolation(400, "bad percent-escape in the path")
    code = int(digits, 16)
    if code == 0:
        raise ProtocolViolation(400, "NUL in the path")
    return bytes((code,)) if code in _UNRESERVED else match[0].upper()


def _without_dots(path: bytes) -> bytes:
    """Remove dot segments and empty ones; `path` begins with a slash and its escapes are normal."""
    kept: list[bytes] = []  # empty segments stay in here until the end, to notice a `..` that meets one
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            if not kept:
                raise ProtocolViolation(400, "the path climbs above its root")
            if not kept.pop():
                raise ProtocolViolation(400, "dot segment after an empty segment in the path")
        elif segment != b".":
            if _has_hidden_dots(segment):
                raise ProtocolViolation(400, "ambiguous dot segment in the path")
            kept.append(segment)
    names = [segment for segment in kept if segment]
    # "/a/", "/a/." and "/a/b/.." all name what is below a (RFC 3986 section 5.2.4).
    ending = b"/" if names and (segments[-1] in (b"", *_DOTS)) else b""
    return b"/" + b"/".join(names) + ending


def _has_hidden_dots(segment: bytes) -> bool:
    """Would another reader find a dot segment in this one: behind an escaped separator, or before parameters?"""
    if b"." not in segment:
        return False
    return any(part.partition(b";")[0] in _DOTS for part in _SEPARATOR_INSIDE.split(segment))


def other_readings(path: bytes) -> list[bytes]:
    """What else a path in normal form means to readers who take %2F (and %5C) for a slash, or cut off parameters (`;x`).

    Both kinds are common behind a proxy (nginx serving files; servlet containers), and lawful paths have such bytes: so it
    is not for us to refuse them where all readings lead to the same route, and not to pass them where they do not. Raises
    ProtocolViolation where a reading climbs above the root.
    """
    readings = []
    if b"%2F" in path or b"%5C" in path:
        readings.append(path.replace(b"%2F", b"/").replace(b"%5C", b"/"))
    if b";" in path:
        readings += [b"/".join([part.partition(b";")[0] for part in each.split(b"/")]) for each in (path, *readings)]
    return [normal_path(each) for each in readings]
