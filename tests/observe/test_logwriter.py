"""The writer thread: bounded, never blocking, whole lines, through every way in which a destination fails.

These tests use real descriptors and the real thread; they wait for conditions, with limits that only a failure reaches.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import stat
import threading
from collections.abc import Callable
from unittest.mock import patch

from twisted.trial.unittest import TestCase

from lbsvc.observe.logwriter import Destination, Destinations, LogWriter

#: Far more than anything here takes; in seconds.
LONG = 30.0


def read_until(fd: int, enough: Callable[[bytes], bool]) -> bytes:
    """Read from a descriptor until `enough`, or its end. Nothing for LONG is an error."""
    collected = b""
    while not enough(collected):
        if not select.select([fd], [], [], LONG)[0]:
            raise AssertionError(f"nothing more to read after {len(collected)} bytes")
        piece = os.read(fd, 65536)
        if not piece:
            break
        collected += piece
    return collected


class FileTests(TestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()
        self.destinations = Destinations()
        self.addCleanup(self.destinations.close, LONG)

    def content(self, path: str | None = None) -> bytes:
        with open(path or self.path, "rb") as file:
            return file.read()

    def test_appends_in_order(self) -> None:
        """Lines reach the file in the order they were written, after what was there before."""
        with open(self.path, "wb") as file:
            file.write(b"before\n")
        writer = self.destinations.writer(self.path, "access")
        for number in range(100):
            self.assertTrue(writer.write(b"%d\n" % number))
        self.assertTrue(self.destinations.flush(LONG))
        self.assertEqual(self.content(), b"before\n" + b"".join(b"%d\n" % number for number in range(100)))
        self.assertEqual(writer.dropped, 0)

    def test_mode(self) -> None:
        """A new log file is for its owner and group only."""
        self.addCleanup(os.umask, os.umask(0))
        self.destinations.writer(self.path, "access")
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)

    def test_one_destination_for_one_path(self) -> None:
        """Logs with the same path, however it is spelled, share one thread and one descriptor."""
        one = self.destinations.writer(self.path, "access")
        other = self.destinations.writer(os.path.join(os.path.dirname(os.path.abspath(self.path)), ".",
                                                      os.path.basename(self.path)), "event")  # fmt: skip
        self.assertIs(one.destination, other.destination)
        dash = self.destinations.writer("-", "access")
        self.assertIs(dash.destination, self.destinations.writer("/dev/stdout", "event").destination)

    def test_no_thread_before_the_first_line(self) -> None:
        """Opening a log starts no thread."""
        before = threading.active_count()
        writer = self.destinations.writer(self.path, "access")
        self.assertEqual(threading.active_count(), before)
        writer.write(b"x\n")
        self.assertEqual(threading.active_count(), before + 1)

    def test_reopen_after_rotation(self) -> None:
        """After a rename and `reopen`, new lines go to a new file of the old name; none is lost."""
        writer = self.destinations.writer(self.path, "access")
        writer.write(b"one\n")
        self.destinations.flush(LONG)
        os.rename(self.path, self.path + ".1")
        self.assertEqual(self.destinations.reopen(), [])
        writer.write(b"two\n")
        self.destinations.flush(LONG)
        self.assertEqual((self.content(self.path + ".1"), self.content()), (b"one\n", b"two\n"))

    def test_reopen_before_the_first_line(self) -> None:
        """A log that has written nothing yet can be reopened too."""
        writer = self.destinations.writer(self.path, "access")
        os.unlink(self.path)
        self.assertEqual(self.destinations.reopen(), [])
        writer.write(b"one\n")
        self.destinations.flush(LONG)
        self.assertEqual(self.content(), b"one\n")

    def test_failed_reopen_keeps_the_old_file(self) -> None:
        """Where the file cannot be opened again, lines go on into the old one, and the failure is reported."""
        folder = self.mktemp()
        os.mkdir(folder)
        path = os.path.join(folder, "log")
        writer = self.destinations.writer(path, "access")
        writer.write(b"one\n")
        self.destinations.flush(LONG)
        os.rename(folder, folder + ".gone")
        complaints = self.destinations.reopen()
        self.assertEqual(complaints, [f"{path}: {os.strerror(errno.ENOENT)}"])
        writer.write(b"two\n")
        self.destinations.flush(LONG)
        self.assertEqual(self.content(os.path.join(folder + ".gone", "log")), b"one\ntwo\n")

    def test_reopen_leaks_no_descriptor(self) -> None:
        """However often a log is reopened, it holds one descriptor."""
        writer = self.destinations.writer(self.path, "access")
        writer.write(b"x\n")
        self.destinations.flush(LONG)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            self.destinations.reopen()
        self.destinations.flush(LONG)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_full_device(self) -> None:
        """A device without room costs lines, which are counted, and no exception."""
        writer = self.destinations.writer("/dev/full", "access")
        writer.write(b"one\ntwo\n")
        self.assertTrue(self.destinations.flush(LONG))
        self.assertEqual(writer.dropped, 2)
        self.assertEqual(self.destinations.dropped(), {"access": 2})

    def test_half_a_line_stays_alone(self) -> None:
        """After a write that failed in the middle of a line, the next line begins on a line of its own."""
        writer = self.destinations.writer(self.path, "access")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, (soft, hard))
        old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGXFSZ, old)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        writer.write(b"first\nsecond\nthird\n")
        self.destinations.flush(LONG)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        writer.write(b"fourth\n")
        writer.write(b"fifth\n")
        self.destinations.flush(LONG)
        self.assertEqual(self.content(), b"first\nseco\nfourth\nfifth\n")
        self.assertEqual(writer.dropped, 2)

    def test_whole_lines(self) -> None:
        """Each write is of whole lines, so that those of other processes come between them, however much there is."""
        ends: list[bytes] = []
        write = os.write

        def noted(fd: int, data: memoryview) -> int:
            ends.append(bytes(data[-1:]))
            return write(fd, data)

        self.patch(os, "write", noted)
        writer = self.destinations.writer(self.path, "access")
        lines = [b"%06d " % number + b"x" * (number % 700) + b"\n" for number in range(3000)]
        writer.write(b"".join(lines))
        writer.write(b"y" * 300_000 + b"\n")
        self.assertTrue(self.destinations.flush(LONG))
        self.assertEqual(set(ends), {b"\n"})
        self.assertGreater(len(ends), 4)
        self.assertEqual(self.content(), b"".join(lines) + b"y" * 300_000 + b"\n")

    def test_unopenable(self) -> None:
        """A path that cannot be opened is the caller's error at once."""
        with self.assertRaises(FileNotFoundError):
            self.destinations.writer(os.path.join(self.path, "no", "such"), "access")

    def test_fifo_without_a_reader(self) -> None:
        """A fifo that nobody reads does not hang the start: opening it fails."""
        os.mkfifo(self.path)
        with self.assertRaises(OSError) as caught:
            self.destinations.writer(self.path, "access")
        self.assertEqual(caught.exception.errno, errno.ENXIO)

    def test_after_close(self) -> None:
        """What is written after the end is dropped and counted."""
        writer = self.destinations.writer(self.path, "access")
        writer.write(b"one\n")
        self.assertTrue(self.destinations.close(LONG))
        self.assertFalse(writer.write(b"two\nthree\n"))
        self.assertEqual((self.content(), writer.dropped), (b"one\n", 2))

    def test_close_twice(self) -> None:
        """Closing is for ever, and may be repeated."""
        self.destinations.writer(self.path, "access").write(b"one\n")
        self.assertTrue(self.destinations.close(LONG))
        self.assertTrue(self.destinations.close(LONG))


class PipeTests(TestCase):
    """Standard output is a pipe here: `_open` duplicates it instead of descriptor 1."""

    def setUp(self) -> None:
        self.reader, self.outside = os.pipe()
        self.addCleanup(self.close_reader)
        self.addCleanup(os.close, self.outside)
        patcher = patch.dict("lbsvc.observe.logwriter._STANDARD", {"-": self.outside})
        patcher.start()
        self.addCleanup(patcher.stop)

    def close_reader(self) -> None:
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1

    def writer(self, max_bytes: int = 64 * 1024) -> LogWriter:
        return LogWriter(Destination("-", max_bytes), "access")

    def test_a_reader_that_stalls(self) -> None:
        """Nobody reads: writes return, the queue is bounded, losses are counted; later, whole lines arrive."""
        writer = self.writer()
        line = b"%06d " + b"x" * 92 + b"\n"
        accepted = sum(writer.write(line % number) for number in range(5000))
        self.assertTrue(writer.full() or accepted < 5000)
        self.assertEqual(writer.dropped, 5000 - accepted)
        # The pipe holds 64 KiB, the queue as much, and the thread may have had a piece in its hands.
        self.assertLess(accepted * 100, 4 * 64 * 1024)
        text = read_until(self.reader, lambda text: text.count(b"\n") >= accepted)
        self.assertTrue(writer.destination.flush(LONG))
        lines = text.splitlines(keepends=True)
        self.assertEqual(len(lines), accepted)
        numbers = [int(each[:6]) for each in lines]
        self.assertEqual(lines, [line % number for number in numbers])
        self.assertEqual(numbers, sorted(set(numbers)))
        self.assertTrue(writer.write(b"again\n"))
        self.assertEqual(read_until(self.reader, lambda text: text.endswith(b"\n")), b"again\n")
        self.assertTrue(writer.destination.close(LONG))

    def test_two_processes_in_one_pipe(self) -> None:
        """What a pipe keeps together is whole lines, so that those of other processes come between them."""
        writer = self.writer()
        lines = [b"%06d " % number + b"x" * (number % 700) + b"\n" for number in range(150)]
        sizes: list[int] = []
        write = os.write

        def noted(fd: int, data: memoryview) -> int:
            sizes.append(len(data))
            return write(fd, data)

        self.patch(os, "write", noted)
        writer.write(b"".join(lines))
        text = read_until(self.reader, lambda text: text.count(b"\n") >= 150)
        self.assertEqual(text, b"".join(lines))
        self.assertLessEqual(max(sizes), select.PIPE_BUF)
        writer.destination.close(LONG)

    def test_two_logs_in_one_pipe(self) -> None:
        """Two logs that share standard output mix by lines, and count their own losses."""
        writer = self.writer()
        event = LogWriter(writer.destination, "event")
        for number in range(200):
            writer.write(b"access %d\n" % number)
            event.write(b"event %d\n" % number)
        lines = read_until(self.reader, lambda text: text.count(b"\n") >= 400).splitlines()
        self.assertEqual(lines[::2], [b"access %d" % number for number in range(200)])
        self.assertEqual(lines[1::2], [b"event %d" % number for number in range(200)])
        self.assertFalse(event.write(b"x\n" * 70_000))
        self.assertEqual((writer.dropped, event.dropped), (0, 70_000))
        writer.destination.close(LONG)

    def test_closing_on_a_stalled_reader(self) -> None:
        """`close` gives up at its deadline, counts what is left, and lets the process end."""
        writer = self.writer(1024 * 1024)
        writer.write(b"x" * 99_999 + b"\n")
        writer.write(b"y" * 99_999 + b"\n")
        self.assertFalse(writer.destination.close(0.0))
        thread = writer.destination._thread
        assert thread is not None
        self.assertTrue(thread.daemon)
        self.close_reader()  # lets the thread end: nothing else would
        thread.join(LONG)
        self.assertFalse(thread.is_alive())
        self.assertEqual(writer.dropped, 2)

    def test_a_reader_that_goes(self) -> None:
        """EPIPE costs lines, not the thread."""
        writer = self.writer()
        self.close_reader()
        writer.write(b"one\n")
        self.assertTrue(writer.destination.flush(LONG))
        writer.write(b"two\nthree\n")
        self.assertTrue(writer.destination.flush(LONG))
        self.assertEqual(writer.dropped, 3)
        self.assertTrue(writer.destination.close(LONG))

    def test_non_blocking_standard_output(self) -> None:
        """Where somebody made the shared description non-blocking, nothing is lost for it."""
        os.set_blocking(self.outside, False)
        writer = self.writer(1024 * 1024)
        sent = b"".join(b"%05d " % number + b"z" * 93 + b"\n" for number in range(3000))
        self.assertTrue(writer.write(sent))
        self.assertEqual(read_until(self.reader, lambda text: len(text) >= len(sent)), sent)
        self.assertTrue(writer.destination.close(LONG))
        self.assertEqual(writer.dropped, 0)

    def test_the_shared_description_stays_as_it_is(self) -> None:
        """We set no O_NONBLOCK on a description that others hold too."""
        writer = self.writer()
        writer.write(b"x\n")
        writer.destination.flush(LONG)
        self.assertTrue(os.get_blocking(self.outside))
        writer.destination.close(LONG)

    def test_closed_standard_output(self) -> None:
        """Started without a standard output, we run, and count."""
        with patch.dict("lbsvc.observe.logwriter._STANDARD", {"-": 1_000_000}):
            writer = self.writer()
        writer.write(b"one\n")
        self.assertTrue(writer.destination.flush(LONG))
        self.assertEqual(writer.dropped, 1)
        self.assertFalse(writer.isatty())
        self.assertTrue(writer.destination.close(LONG))
