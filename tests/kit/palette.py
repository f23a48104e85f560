"""Screenshots made small: the PNG that Chromium makes, with a palette of 256 colours in place of millions.

Promises: every pixel gets the colour nearest to its own; the most common ones stay as they are, and of the rare ones those
are kept that nothing else is like. For pictures of 8 bits a channel without transparency, which screenshots are. Used by
photographing.py. Pure; takes seconds.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MOST = 256
#: So many are taken because they are common; the rest because they are unlike.
_COMMON = 128

Colour = bytes


def shrink(picture: bytes) -> bytes:
    """The same with a palette."""
    width, height, rows = _read(picture)
    counts = Counter(row[at : at + 3] for row in rows for at in range(0, 3 * width, 3))
    palette = choose(counts)
    place = {colour: _nearest(colour, palette) for colour in counts}
    lines = b"".join(b"\0" + bytes(place[row[at : at + 3]] for at in range(0, 3 * width, 3)) for row in rows)
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", head), (b"PLTE", b"".join(palette)), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(*part) for part in parts)


def choose(counts: Counter[Colour]) -> list[Colour]:
    """At most 256 of these colours."""
    common = counts.most_common()
    palette = [colour for colour, _ in common[:_COMMON]]
    away = {colour: min(_distance(colour, each) for each in palette) for colour, _ in common[_COMMON:]}
    while away and len(palette) < _MOST:
        picked = max(away, key=lambda colour: away[colour] * counts[colour])
        del away[picked]
        palette.append(picked)
        for colour, distance in away.items():
            away[colour] = min(distance, _distance(colour, picked))
    return palette


def _distance(one: Colour, other: Colour) -> int:
    """How unlike they are to the eye, which minds green most."""
    return 2 * (one[0] - other[0]) ** 2 + 4 * (one[1] - other[1]) ** 2 + 3 * (one[2] - other[2]) ** 2


def _nearest(colour: Colour, palette: list[Colour]) -> int:
    return min(range(len(palette)), key=lambda at: _distance(colour, palette[at]))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _chunks(picture: bytes) -> Iterator[tuple[bytes, bytes]]:
    assert picture.startswith(_SIGNATURE), "this is no PNG"
    at = len(_SIGNATURE)
    while at < len(picture):
        size, kind = struct.unpack_from(">I4s", picture, at)
        yield kind, picture[at + 8 : at + 8 + size]
        at += 12 + size


def _read(picture: bytes) -> tuple[int, int, list[bytes]]:
    """Width, height, and the rows of three bytes for each pixel."""
    head, packed = b"", b""
    for kind, body in _chunks(picture):
        if kind == b"IHDR":
            head = body
        elif kind == b"IDAT":
            packed += body
    width, height, depth, colours, _, _, interlace = struct.unpack(">IIBBBBB", head)
    assert (depth, colours, interlace) == (8, 2, 0), "not of this kind"
    raw, size = zlib.decompress(packed), 3 * width
    rows: list[bytes] = []
    before = bytearray(size)
    for start in range(0, len(raw), size + 1):
        before = _unfilter(raw[start], bytearray(raw[start + 1 : start + 1 + size]), before)
        rows.append(bytes(before))
    return width, height, rows


def _unfilter(kind: int, line: bytearray, above: bytearray) -> bytearray:
    """A row as it was before PNG's filter (RFC 2083, 6)."""
    if kind == 0:
        return line
    for at in range(len(line)):
        left, corner = (line[at - 3], above[at - 3]) if at > 2 else (0, 0)
        up = above[at]
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = up
        elif kind == 3:
            guess = (left + up) // 2
        else:
            guess = _paeth(left, up, corner)
        line[at] = (line[at] + guess) & 255
    return line


def _paeth(left: int, up: int, corner: int) -> int:
    middle = left + up - corner
    return min((left, up, corner), key=lambda each: abs(middle - each))
