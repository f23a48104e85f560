"""Screenshots with a palette: what is drawn stays, and becomes smaller."""

from __future__ import annotations

import random
import struct
import zlib

from twisted.trial.unittest import TestCase

from tests.kit.palette import _chunk, _chunks, _distance, _read, shrink

SIZE = 48


def picture(rows: list[bytes], filters: list[int]) -> bytes:
    """A PNG of these rows, each filtered in its own way."""
    lines = b""
    above = bytes(3 * SIZE)
    for row, kind in zip(rows, filters, strict=True):
        lines += bytes([kind])
        for at, value in enumerate(row):
            left, corner = (row[at - 3], above[at - 3]) if at > 2 else (0, 0)
            up = above[at]
            middle = left + up - corner
            near = [(abs(middle - each), place, each) for place, each in enumerate((left, up, corner))]
            guess = (0, left, up, (left + up) // 2, min(near)[2])[kind]
            lines += bytes([(value - guess) & 255])
        above = row
    head = struct.pack(">IIBBBBB", SIZE, len(rows), 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def pixels(made: bytes) -> list[bytes]:
    """The colours of a picture with a palette, row by row."""
    found = dict(_chunks(made))
    raw = zlib.decompress(found[b"IDAT"])
    lines = [raw[start + 1 : start + 1 + SIZE] for start in range(0, len(raw), SIZE + 1)]
    return [b"".join(found[b"PLTE"][3 * each : 3 * each + 3] for each in line) for line in lines]


class PaletteTests(TestCase):
    def setUp(self) -> None:
        chance = random.Random(7)
        self.few = [bytes(chance.choice(b"\x00\x80\xff") for _ in range(3 * SIZE)) for _ in range(20)]
        self.many = [bytes(chance.randrange(256) for _ in range(3 * SIZE)) for _ in range(20)]
        self.filters = [each % 5 for each in range(20)]

    def test_read(self) -> None:
        """Each of PNG's filters is understood."""
        self.assertEqual(_read(picture(self.many, self.filters))[2], self.many)

    def test_few_colours(self) -> None:
        """Where there is room for all colours the picture is the same."""
        self.assertEqual(pixels(shrink(picture(self.few, self.filters))), self.few)

    def test_many_colours(self) -> None:
        """Else each pixel is as near to what it was as the palette allows, and the picture is smaller."""
        before = picture(self.many, self.filters)
        made = shrink(before)
        self.assertLess(len(made), len(before))
        palette = dict(_chunks(made))[b"PLTE"]
        colours = [palette[at : at + 3] for at in range(0, len(palette), 3)]
        self.assertEqual(len(set(colours)), 256)
        for row, now in zip(self.many, pixels(made), strict=True):
            for at in range(0, 3 * SIZE, 3):
                best = min(_distance(row[at : at + 3], each) for each in colours)
                self.assertEqual(_distance(row[at : at + 3], now[at : at + 3]), best)
