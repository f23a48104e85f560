"""Streams in step, chunked reading and the peak of memory do what tests of streaming take for granted."""

from __future__ import annotations

import io
import os
import socket
import threading

from twisted.trial.unittest import TestCase

from tests.kit.flows import BLOCK, Chunks, Stuck, block, in_chunk, pour, read_lines, sip
from tests.kit.programs import Memory

MIB = 1024 * 1024


class FlowTests(TestCase):
    def test_in_step(self) -> None:
        """A reader that waits for the sender to be stuck gets all of it, in order, as the checksum says."""
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        stuck, sums = Stuck(), []
        sender = threading.Thread(target=lambda: sums.append(pour(near, 8 * MIB, stuck)), daemon=True)
        sender.start()
        with far.makefile("rb") as file:
            sums.append(sip(file, 8 * MIB, stuck))
        sender.join(10)
        self.assertEqual(sums[0], sums[1])
        self.assertEqual((stuck.sent, stuck.is_over), (8 * MIB, True))

    def test_what_is_wrong_shows(self) -> None:
        """A block out of order changes the checksum, and an end that comes too soon is told."""
        over = Stuck()
        over.finish()
        right, wrong = block(0) + block(1), block(1) + block(0)
        self.assertNotEqual(sip(io.BytesIO(right), 2 * BLOCK, over), sip(io.BytesIO(wrong), 2 * BLOCK, over))
        self.assertRaises(AssertionError, sip, io.BytesIO(right), 3 * BLOCK, over)

    def test_chunks(self) -> None:
        """A chunked body is read up to its end, with its trailers, and not beyond."""
        file = io.BytesIO(in_chunk(b"abc") + in_chunk(b"defg") + b"0\r\nT: 1\r\n\r\nnext")
        chunks = Chunks(file, file.readline)
        self.assertEqual([chunks.read(2) for _ in range(6)], [b"ab", b"c", b"de", b"fg", b"", b""])
        self.assertEqual(file.read(), b"next")
        broken = io.BytesIO(b"3\r\nabcd\r\n0\r\n\r\n")
        self.assertRaises(AssertionError, Chunks(broken, broken.readline).read, 3)

    def test_lines(self) -> None:
        """The lines of a header section; one that ends too soon does not look whole."""
        whole = io.BytesIO(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody")
        self.assertEqual(read_lines(whole.readline), [b"GET / HTTP/1.1\r\n", b"Host: a\r\n"])
        self.assertRaises(EOFError, read_lines, io.BytesIO(b"GET / HTTP/1.1\r\nHost").readline)


class MemoryTests(TestCase):
    def test_peak(self) -> None:
        """What was taken and given back again counts."""
        memory = Memory(os.getpid())
        self.assertLess(memory.growth, MIB)
        taken = bytearray(b"x") * (96 * MIB)
        del taken
        self.assertGreater(memory.growth, 64 * MIB)
