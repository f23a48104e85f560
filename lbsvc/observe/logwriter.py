"""Where log lines leave the process: one thread and one bounded queue for each destination.

Promises: `LogWriter.write` never blocks and never raises, whatever the destination does. What a stalled or failing
destination cannot take is dropped whole lines at a time and counted in `dropped` of the writer it came from. Lines
are never torn into one another: writers to the same path share one thread, and after a write that failed in the
middle of a line the next one begins on a new line. Other processes may write to the same place (workers; the next program,
in an upgrade), so each write is of whole lines, as many as the place keeps together: of a file 256 KiB, else 4096 bytes. A
longer line may have others' in it.

Called by observe/events.py and observe/accesslog.py from the reactor's thread (any thread may); `Destinations`
belongs to app.py. Sizes are bytes, timeouts seconds.

Invariants: the queue's lock is never held over a system call, so the reactor's thread waits for nothing but a list
append. `_queued` counts what is in the queue and what the thread is just writing. The thread is a daemon: one that is
stuck in write(2) to a pipe that nobody reads does not keep the process from ending. O_NONBLOCK is never set on
standard output, whose file description is shared with others; if somebody else has set it, the thread waits with
poll(2).
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
import threading
import time
from collections.abc import Sequence
from typing import Final

#: What the queue of one destination holds at most (contract.md).
MAX_QUEUED: Final = 8 * 1024 * 1024

#: The most that one write(2) is given, longer lines aside: the unit in which a stalled destination is accounted for.
_CHUNK: Final = 256 * 1024

#: Paths that mean a descriptor we have already; opening them anew fails where it is a socket (systemd's journal).
_STANDARD: Final = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}

#: What a pipe takes from several processes without mixing it up (POSIX; on Linux 4096 bytes).
_WHOLE: Final = select.PIPE_BUF

_Entry = tuple["LogWriter", bytes]


class LogWriter:
    """A log's own end of a destination: where its lines go in, and how many were lost."""

    def __init__(self, destination: Destination, name: str) -> None:
        self.destination = destination
        self.name = name  # the label of lbsvc_log_dropped_total
        self.dropped = 0  # lines

    def write(self, data: bytes) -> bool:
        """Queue whole lines; False if they were dropped."""
        return self.destination.put(self, data)

    def full(self) -> bool:
        """Whether lines would be dropped now: lets a log save itself the formatting."""
        return self.destination.full

    def drop(self, lines: int) -> None:
        """Count lines that their log has given up on before writing them."""
        self.destination.count_drop(self, lines)

    def isatty(self) -> bool:
        return self.destination.isatty()

    def is_journal(self, stream: str) -> bool:
        """Whether lines go to systemd's journal; `stream` is what JOURNAL_STREAM says: its socket's device and inode."""
        return self.destination.identity() == stream


class Destination:
    """One path: the descriptor, the queue, the thread that empties it (started by the first write)."""

    def __init__(self, path: str, max_bytes: int = MAX_QUEUED) -> None:
        self.path = path
        self._fd = _open(path)
        self._max = max_bytes
        self._lock = threading.Condition()
        self._queue: list[_Entry] = []
        self._queued = 0
        self._idle = True  # the thread waits for work
        self._fresh: int | None = None  # a descriptor to go on with, after reopen()
        self._closing = False
        self._abandoned = False
        self._retired = False  # nobody waits for its end: the thread closes the descriptor
        self._torn = False
        self._thread: threading.Thread | None = None

    @property
    def full(self) -> bool:
        return self._queued >= self._max or self._closing

    def isatty(self) -> bool:
        try:
            return os.isatty(self._fd)
        except OSError:
            return False

    def identity(self) -> str:
        """Device and inode of what is written to now, as JOURNAL_STREAM has them; "-" where there is nothing."""
        try:
            found = os.fstat(self._fd)
        except OSError:
            return "-"
        return f"{found.st_dev}:{found.st_ino}"

    def put(self, writer: LogWriter, data: bytes) -> bool:
        with self._lock:
            if self._closing or self._queued + len(data) > self._max:
                writer.dropped += data.count(b"\n")
                return False
            self._queue.append((writer, data))
            self._queued += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"log {self.path}", daemon=True)
                self._thread.start()
            elif self._idle:
                self._lock.notify_all()
        return True

    def count_drop(self, writer: LogWriter, lines: int) -> None:
        with self._lock:
            writer.dropped += lines

    def reopen(self) -> None:
        """Go on in a newly opened file (after a rotation). OSError: it cannot be opened, and the old one stays."""
        if self.path in _STANDARD:
            return
        fresh = _open(self.path)
        with self._lock:
            if self._thread is None or self._closing:
                stale, self._fd = self._fd, fresh
            else:
                # The thread may be inside write(2) with the old descriptor: it changes over by itself.
                stale, self._fresh = (-1 if self._fresh is None else self._fresh), fresh
                self._lock.notify_all()
        _close(stale)

    def flush(self, timeout: float) -> bool:
        """Wait until everything queued has left; for tests and for close. False: the time was not enough."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._queued and self._fresh is None, timeout)

    def close(self, timeout: float) -> bool:
        """Write what can be written within `timeout`, then let go. False: something was left, and counted."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                with self._lock:
                    self._abandoned = True
                    self._lose(self._queue, 0)
                    self._queue = []
                return False  # the descriptor stays with the thread that is stuck in it
        _close(self._fd)
        self._fd = -1
        return True

    def retire(self) -> None:
        """Let go without waiting: what is queued is written by the thread, which then ends."""
        with self._lock:
            self._closing = self._retired = True
            self._lock.notify_all()
        if self._thread is None:
            _close(self._fd)
            self._fd = -1

    # The thread's side.

    def _run(self) -> None:
        while True:
            with self._lock:
                self._change_over()
                while not self._queue:
                    if self._closing:
                        if self._abandoned or self._retired:
                            _close(self._fd)
                        return
                    self._idle = True
                    self._lock.wait()
                    self._idle = False
                    self._change_over()
                self._idle = False
                batch, self._queue = self._queue, []
            self._deliver(batch)

    def _change_over(self) -> None:
        """Take up the descriptor that reopen() left. Holds the lock; closing a log file's descriptor does not block."""
        if self._fresh is not None:
            stale, self._fd, self._fresh = self._fd, self._fresh, None
            self._torn = False
            _close(stale)
            self._lock.notify_all()

    def _deliver(self, batch: Sequence[_Entry]) -> None:
        """Write a batch in few large pieces, each accounted for as soon as it is gone."""
        piece: list[_Entry] = []
        size = 0
        for entry in batch:
            piece.append(entry)
            size += len(entry[1])
            if size >= _CHUNK:
                self._deliver_piece(piece, size)
                piece, size = [], 0
        if piece:
            self._deliver_piece(piece, size)

    def _deliver_piece(self, piece: Sequence[_Entry], size: int) -> None:
        joined = piece[0][1] if len(piece) == 1 else b"".join([data for _, data in piece])
        written = self._write(joined)
        with self._lock:
            if written < size:
                self._lose(piece, written)
            self._queued -= size
            self._change_over()
            self._lock.notify_all()

    def _write(self, data: bytes) -> int:
        """Write all of it; less than that many bytes if the destination fails."""
        if self._torn:
            # The half line that is there already must not swallow the next one.
            data = b"\n" + data
        sent = 0
        view = memoryview(data)
        whole = _CHUNK if _is_file(self._fd) else _WHOLE
        while sent < len(data):
            if self._abandoned:
                break
            try:
                sent += os.write(self._fd, view[sent : _end_of_lines(data, sent, whole)])
            except BlockingIOError:
                _wait_writable(self._fd)
            except OSError:
                break
        if sent:
            self._torn, was_torn = data[sent - 1 : sent] != b"\n", self._torn
            return sent - 1 if was_torn else sent
        return 0

    def _lose(self, entries: Sequence[_Entry], written: int) -> None:
        """Count the lines of these entries but for the first `written` bytes. Holds the lock."""
        for writer, data in entries:
            if written < len(data):
                writer.dropped += data.count(b"\n", max(written, 0))
            written -= len(data)


class Destinations:
    """Every destination of the process, one for each path, so that logs with the same path share it."""

    def __init__(self, max_bytes: int = MAX_QUEUED) -> None:
        self._max = max_bytes
        self._by_key: dict[str, Destination] = {}
        self._writers: list[LogWriter] = []
        self._former: dict[str, LogWriter] = {}  # by log name: one that has been released counts for all of them

    def writer(self, path: str, name: str) -> LogWriter:
        """A writer to `path` ("-": standard output) for the log `name`. OSError: it cannot be opened."""
        key = f"fd {_STANDARD[path]}" if path in _STANDARD else os.path.realpath(path)
        destination = self._by_key.get(key)
        if destination is None:
            destination = self._by_key[key] = Destination(path, self._max)
        writer = LogWriter(destination, name)
        self._writers.append(writer)
        return writer

    def dropped(self) -> dict[str, int]:
        """Lines lost, by log name: what lbsvc_log_dropped_total shows."""
        counts: dict[str, int] = {}
        for writer in (*self._writers, *self._former.values()):
            counts[writer.name] = counts.get(writer.name, 0) + writer.dropped
        return counts

    def release(self, writer: LogWriter) -> None:
        """This writer writes no more; a destination that nobody else writes to is let go of, once its lines have left."""
        self._writers.remove(writer)
        former = self._former.setdefault(writer.name, writer)
        if former is not writer:
            former.dropped += writer.dropped
        if all(each.destination is not writer.destination for each in self._writers):
            self._by_key = {key: each for key, each in self._by_key.items() if each is not writer.destination}
            writer.destination.retire()

    def reopen(self) -> list[str]:
        """Reopen every file (SIGUSR1); what could not be, in words. Its old file stays in use."""
        complaints = []
        for destination in self._by_key.values():
            try:
                destination.reopen()
            except OSError as error:
                complaints.append(f"{destination.path}: {error.strerror or error}")
        return complaints

    def flush(self, timeout: float) -> bool:
        """Wait until everything queued has left, `timeout` for each destination; for tests."""
        return all(destination.flush(timeout) for destination in self._by_key.values())

    def close(self, timeout: float = 2.0) -> bool:
        """Close all of them, within `timeout` together. Blocks; only for the very end of the process."""
        end = time.monotonic() + timeout
        done = [destination.close(max(0.0, end - time.monotonic())) for destination in self._by_key.values()]
        return all(done)


def _open(path: str) -> int:
    """A descriptor of our own for `path`; -1 where standard output is closed (every line is dropped, then)."""
    number = _STANDARD.get(path)
    if number is not None:
        try:
            return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
        except OSError:
            return -1
    # O_NONBLOCK, on a description that is ours alone: a fifo without a reader must not hang the start.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    return os.open(path, flags, 0o640)


def _is_file(fd: int) -> bool:
    """Whether all of what one write(2) takes stays together: appended to a file, it does."""
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return False


def _end_of_lines(data: bytes, begin: int, whole: int) -> int:
    """Where the last line ends that is whole within what stays together; where there is none, the end of the first."""
    end = data.rfind(b"\n", begin, begin + whole) + 1
    return end or data.find(b"\n", begin) + 1 or len(data)


def _close(fd: int) -> None:
    if fd >= 0:
        try:
            os.close(fd)
        except OSError:
            pass


def _wait_writable(fd: int) -> None:
    """Wait for room, a second at most: whoever was given up on meanwhile must notice."""
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    poller.poll(1000)
