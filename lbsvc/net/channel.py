"""Messages between two processes of ours, with open descriptors, over one end of a connected unix socket pair (SOCK_STREAM).

Frame: 4 bytes length of the message (big endian), 1 byte number of descriptors, the message. Sizes are bytes.

Promises: messages arrive whole, in order, each with its own descriptors, or the channel is lost, of which `on_lost` is told
once, from the reactor, behind every message that came before. `send` never blocks. What waits is bounded by MOST_UNSENT: an
end that reads nothing for so long hangs, and the channel is lost. Nothing that is passed leaks: descriptors that wait are
duplicates, closed when they are sent or the channel ends; received ones are close-on-exec, belong to `on_message`, and are
closed where their message never comes. Used by workers/, for a few messages a second (200 KB: 0.12 ms for both ends).

Which message do descriptors belong to? Linux attaches those of one sendmsg to its first piece; a recvmsg may begin with
bytes of earlier calls, ends within the first piece that has descriptors, and so brings those of one sendmsg at most. Here
they go with the first byte of their message, and a sendmsg never reaches into a message that has some: when a message is
complete, its descriptors are there, behind those of the messages before it. A queue and the counts in the frames suffice.

The other end is trusted to be of the same program; what it sends against these rules loses the channel.
"""

from __future__ import annotations

import os
import socket
import struct
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python import log
from zope.interface import implementer

#: The longest message.
MOST: Final = 64 * 1024 * 1024
#: The most descriptors of one message: what Linux takes in one call (SCM_MAX_FD).
MOST_DESCRIPTORS: Final = 253
#: So much may wait to be sent.
MOST_UNSENT: Final = 128 * 1024 * 1024

_HEAD: Final = struct.Struct(">IB")
_AT_ONCE: Final = 65536
#: Reads in one turn of the reactor.
_READS: Final = 8
#: Pieces in one sendmsg.
_PIECES: Final = 64
_INT: Final = array("i").itemsize
_ANCILLARY: Final = socket.CMSG_SPACE(MOST_DESCRIPTORS * _INT)


class _Piece:
    """Part of a frame that waits; the first part of a frame has its descriptors, which are ours to close."""

    __slots__ = ("descriptors", "rest")

    def __init__(self, rest: memoryview, descriptors: Sequence[int] = ()) -> None:
        self.rest = rest
        self.descriptors = descriptors


@implementer(IReadWriteDescriptor)
class Channel:
    """One end; it reads from the moment it is made, and owns the socket."""

    def __init__(
        self,
        reactor: Any,
        skt: socket.socket,
        on_message: Callable[[bytes, list[int]], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._socket = skt
        self._on_message = on_message
        self._on_lost = on_lost
        self._queue: deque[_Piece] = deque()
        #: bytes that wait
        self.unsent = 0
        self._room = bytearray(_AT_ONCE)
        self._received = bytearray()
        self._descriptors: deque[int] = deque()  # received; their messages are not complete
        self._is_over = False
        self._is_writing = False  # the reactor tells when there is room
        self._broken: Any = None  # the call that will say that nothing can be sent any more
        skt.setblocking(False)
        reactor.addReader(self)

    # -- out

    def send(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        """Behind all that was sent before. The descriptors may be closed when this returns.

        Raises ValueError for what is too much for one message, OSError where descriptors cannot be duplicated: nothing has
        been sent then. A channel that is lost or closed swallows it.
        """
        if len(message) > MOST:
            raise ValueError(f"a message of {len(message)} bytes is longer than {MOST}")
        if len(descriptors) > MOST_DESCRIPTORS:
            raise ValueError(f"{len(descriptors)} descriptors are more than {MOST_DESCRIPTORS}")
        if self._is_over or self._broken is not None:
            return
        must_wait = bool(self._queue)
        head = _HEAD.pack(len(message), len(descriptors))
        self._queue.append(_Piece(memoryview(head), _duplicates(descriptors)))
        if message:
            self._queue.append(_Piece(memoryview(message)))
        self.unsent += len(head) + len(message)
        if not must_wait:
            self._write()
        elif self.unsent > MOST_UNSENT:
            self._break(f"the other end hangs: {self.unsent} bytes wait for it")

    def _write(self) -> None:
        """As much of what waits as there is room for."""
        queue = self._queue
        while queue:
            first = queue[0]
            pieces = [first.rest]
            for piece in islice(queue, 1, _PIECES):
                if piece.descriptors:
                    break
                pieces.append(piece.rest)
            passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", first.descriptors))]
            try:
                sent = self._socket.sendmsg(pieces, passed if first.descriptors else [])
            except BlockingIOError:
                break
            except OSError as problem:
                self._break(f"cannot be written to: {problem.strerror or problem}")
                return
            _close(first.descriptors)
            first.descriptors = ()
            self.unsent -= sent
            while sent:
                rest = queue[0].rest
                if sent < len(rest):
                    queue[0].rest = rest[sent:]
                    break
                sent -= len(rest)
                queue.popleft()
        if bool(queue) != self._is_writing:
            self._is_writing = not self._is_writing
            (self._reactor.addWriter if self._is_writing else self._reactor.removeWriter)(self)

    def _break(self, words: str) -> None:
        """Nothing can be sent any more. What has come is delivered, and then the channel is lost, a turn later."""
        self._drop_unsent()
        if self._is_writing:
            self._is_writing = False
            self._reactor.removeWriter(self)
        self._broken = self._reactor.callLater(0, self._last_words, words)

    def _last_words(self, words: str) -> None:
        for _ in range(_READS * 8):  # more than a socket holds
            if self._is_over or not self._read():
                break
        self._lose(words)

    # -- in

    def _read(self) -> bool:
        """Once. Was there anything?"""
        try:
            count, ancillary, flags, _ = self._socket.recvmsg_into([self._room], _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except OSError as problem:
            self._lose(f"cannot be read: {problem.strerror or problem}")
            return False
        for level, kind, passed in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._descriptors.extend(array("i", passed[: len(passed) - len(passed) % _INT]))
        if flags & socket.MSG_CTRUNC:
            self._lose("descriptors were lost: too many are open here")
            return False
        if not count:
            self._lose("the other end has closed it" if not self._received else "it ended within a message")
            return False
        with memoryview(self._room) as room:
            self._received += room[:count]
        self._deliver()
        return not self._is_over

    def _deliver(self) -> None:
        """All messages that are complete."""
        received, at = self._received, 0
        while len(received) - at >= _HEAD.size:
            length, passed = _HEAD.unpack_from(received, at)
            if length > MOST or passed > MOST_DESCRIPTORS:
                self._lose(f"nonsense came: a message of {length} bytes with {passed} descriptors")
                return
            end = at + _HEAD.size + length
            if len(received) < end:
                break
            if len(self._descriptors) < passed:
                self._lose(f"nonsense came: {len(self._descriptors)} descriptors with a message of {passed}")
                return
            with memoryview(received) as view:
                message = bytes(view[at + _HEAD.size : end])
            at = end
            descriptors = [self._descriptors.popleft() for _ in range(passed)]
            try:
                self._on_message(message, descriptors)
            except Exception:
                log.err(None, "a message of another process of ours could not be dealt with")
            if self._is_over:
                return
        del received[:at]
        if self._descriptors and not received:
            self._lose("nonsense came: descriptors without a message")

    # -- the end

    def close(self) -> None:
        """It is over, and `on_lost` is not told. What waits is tried once more; whatever has no room then is lost."""
        if self._is_over:
            return
        if self._broken is None:
            self._write()
        self._finish()

    def _lose(self, words: str) -> None:
        if self._is_over:
            return
        self._finish()
        try:
            self._on_lost(words)
        except Exception:
            log.err(None, "the end of a channel to another process of ours could not be dealt with")

    def _finish(self) -> None:
        self._is_over = True
        if self._broken is not None and self._broken.active():
            self._broken.cancel()
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._socket.close()
        self._drop_unsent()
        _close(self._descriptors)
        self._descriptors.clear()
        self._received = bytearray()

    def _drop_unsent(self) -> None:
        for piece in self._queue:
            _close(piece.descriptors)
        self._queue.clear()
        self.unsent = 0

    # -- as the reactor sees it

    def fileno(self) -> int:
        """-1 at the end."""
        return self._socket.fileno()

    def doRead(self) -> None:  # noqa: N802 - Twisted's name
        """There is something to be read."""
        for _ in range(_READS):
            if self._is_over or not self._read():
                return

    def doWrite(self) -> None:  # noqa: N802
        """There is room."""
        if not self._is_over and self._broken is None:
            self._write()

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        """The reactor has given it up: it stops, or the socket is no good."""
        self._lose(f"given up: {reason.getErrorMessage()}")

    def logPrefix(self) -> str:  # noqa: N802
        """Whose log lines are these?"""
        return "Channel"

    def __repr__(self) -> str:
        return f"<Channel {'over' if self._is_over else self.fileno()}, {self.unsent} bytes unsent>"


def _duplicates(descriptors: Iterable[int]) -> Sequence[int]:
    """Of all, or of none."""
    found: list[int] = []
    try:
        for descriptor in descriptors:
            found.append(os.dup(descriptor))  # noqa: PERF401 - those that were made are closed if one fails
    except OSError:
        _close(found)
        raise
    return found


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
