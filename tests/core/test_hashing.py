"""Hashing: the same numbers everywhere and always, and as even as chance."""

from __future__ import annotations

from collections import Counter

from twisted.trial.unittest import TestCase

from lbsvc.core.hashing import identity, key_hash, numbers
from tests.core.members import member


class HashingTests(TestCase):
    def test_known_values(self) -> None:
        """Keys and rows have the values that they had in the first version: clients stay where they are."""
        self.assertEqual(key_hash(b""), 0xB4B2797457A0A6E4)
        self.assertEqual(key_hash(b"192.0.2.1"), 0x11288B28CEFA74C8)
        self.assertEqual(numbers(b"a", 2), (0xBF6688D288DEC885, 0x2B1661390B096808))

    def test_rows_grow(self) -> None:
        """A longer row begins like a shorter one of the same seed, and rows of two seeds differ."""
        self.assertEqual(numbers(b"a", 40)[:3], numbers(b"a", 3))
        self.assertEqual(numbers(b"a", 0), ())
        self.assertNotEqual(numbers(b"a", 1), numbers(b"b", 1))

    def test_all_bits(self) -> None:
        """Of the keys of like addresses every bit is set about half of the time."""
        keys = [key_hash(b"10.0.%d.%d" % (high, low)) for high in range(16) for low in range(256)]
        for bit in range(64):
            self.assertLess(abs(sum(key >> bit & 1 for key in keys) - 2048), 200)
        self.assertEqual(len(set(keys)), len(keys))

    def test_even(self) -> None:
        """Keys fall evenly into a small number of places."""
        counts = Counter(key_hash(b"client %d" % number) % 7 for number in range(7000))
        for count in counts.values():
            self.assertLess(abs(count - 1000), 120)

    def test_a_backend_is_its_name(self) -> None:
        """Two backends of one name are the same for hashing, whatever their weight, state or address."""
        one, other = member("b1"), member("b1", 7, host="10.9.9.9", health="down")
        self.assertEqual(identity(one), identity(other))
        self.assertNotEqual(identity(one), identity(member("b2")))
        self.assertEqual(identity(member("ü\udc80")), "ü".encode() + b"\xed\xb2\x80")
