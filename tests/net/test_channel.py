"""net/channel.py: messages and descriptors between two processes, over real socket pairs."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from array import array
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.epollreactor import EPollReactor

from lbsvc.net import channel
from lbsvc.net.channel import MOST, MOST_DESCRIPTORS, Channel
from tests.net.reactors import ReactorCase

HEAD = struct.Struct(">IB")


def frame(message: bytes, descriptors: int = 0) -> bytes:
    return HEAD.pack(len(message), descriptors) + message


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError as problem:
        assert problem.errno == errno.EBADF
        return False
    return True


def same(one: int, other: int) -> bool:
    """Whether two descriptors are of the same file."""
    return os.path.samestat(os.fstat(one), os.fstat(other))


class End:
    """One channel, and what it has told."""

    def __init__(self, reactor: Any, skt: socket.socket) -> None:
        self.messages: list[bytes] = []
        self.descriptors: list[list[int]] = []
        self.lost: list[str] = []
        self.act: Any = lambda message: None
        self.channel = Channel(reactor, skt, self._took, self.lost.append)

    def _took(self, message: bytes, descriptors: list[int]) -> None:
        self.messages.append(message)
        self.descriptors.append(descriptors)
        self.act(message)


class ChannelCase(ReactorCase):
    """Ends, files to pass, and a count of what is open."""

    def setUp(self) -> None:
        super().setUp()
        self.opened: list[int] = []
        self.addCleanup(lambda: [os.close(each) for each in self.opened if is_open(each)])
        self.made: list[End] = []
        self.addCleanup(self._close_all)

    def _close_all(self) -> None:
        for end in self.made:
            end.channel.close()
            for descriptors in end.descriptors:
                for each in descriptors:
                    os.close(each)

    def end(self, skt: socket.socket) -> End:
        end = End(self.reactor, skt)
        self.made.append(end)
        return end

    def both(self) -> tuple[End, End]:
        one, other = self.sockets()
        return self.end(one), self.end(other)

    def half(self) -> tuple[End, socket.socket]:
        """A channel, and the plain socket at its other end."""
        one, other = self.sockets()
        return self.end(one), other

    def files(self, number: int) -> list[int]:
        """So many open files, each another."""
        found = [os.memfd_create(f"file {each}") for each in range(number)]
        self.opened += found
        return found

    def pass_plainly(self, far: socket.socket, payload: bytes, descriptors: Sequence[int]) -> None:
        sent = far.sendmsg([payload], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))])
        self.assertEqual(sent, len(payload))


class ChannelTests(ChannelCase):
    def test_messages(self) -> None:
        """Messages of any length arrive whole and in order, both ways, empty ones among them."""
        one, other = self.both()
        sent = [b"a", b"", b"x" * 300_000, b"the end"]
        for message in sent:
            one.channel.send(message)
        other.channel.send(b"back")
        self.spin(lambda: len(other.messages) == len(sent) and one.messages)
        self.assertEqual(other.messages, sent)
        self.assertEqual(one.messages, [b"back"])
        self.assertEqual((one.channel.unsent, one.lost, other.lost), (0, [], []))

    def test_an_answer_from_within(self) -> None:
        """A message may be answered from within the call that brings it."""
        one, other = self.both()
        other.act = lambda message: other.channel.send(message.upper())
        for word in (b"a", b"b"):
            one.channel.send(word)
        self.spin(lambda: len(one.messages) == 2)
        self.assertEqual(one.messages, [b"A", b"B"])

    def test_a_reader_that_stalls(self) -> None:
        """`send` does not wait for an end that reads nothing: what has no room waits, in order, and goes when there is."""
        one, far = self.half()
        sent = [bytes([number]) * 100_000 for number in range(20)]
        for message in sent:
            one.channel.send(message)
        waiting = one.channel.unsent
        self.assertGreater(waiting, 0)
        self.turn()
        self.assertEqual(one.channel.unsent, waiting)
        other = self.end(far)
        self.spin(lambda: len(other.messages) == len(sent))
        self.assertEqual(other.messages, sent)
        self.assertEqual(one.channel.unsent, 0)
        self.turn()
        self.assertNotIn(one.channel, self.reactor.getWriters())

    def test_a_reader_that_hangs(self) -> None:
        """When too much waits the channel is lost, in a later turn, and what waited is gone with its descriptors."""
        self.patch(channel, "MOST_UNSENT", 1_000_000)
        one, _ = self.half()
        before = len(os.listdir("/proc/self/fd"))
        (file,) = self.files(1)
        for _ in range(15):
            one.channel.send(b"x" * 100_000, [file])
        self.assertEqual(one.lost, [])
        self.spin(lambda: one.lost)
        self.assertEqual(len(one.lost), 1)
        self.assertIn("hangs", one.lost[0])
        self.assertEqual(one.channel.unsent, 0)
        # The file itself is one more, the channel's socket one less.
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        one.channel.send(b"nobody hears it", [file])
        self.assertEqual(one.channel.unsent, 0)

    def test_too_much(self) -> None:
        """What is too long or has too many descriptors is refused, and the channel goes on."""
        self.patch(channel, "MOST", 1000)
        one, other = self.both()
        self.assertRaises(ValueError, one.channel.send, b"x" * 1001)
        self.assertRaises(ValueError, one.channel.send, b"x", [0] * (MOST_DESCRIPTORS + 1))
        self.assertRaises(OSError, one.channel.send, b"x", [0, 999_999])
        one.channel.send(b"x" * 1000)
        self.spin(lambda: other.messages)
        self.assertEqual(other.messages, [b"x" * 1000])

    def test_mistakes_of_receivers(self) -> None:
        """An exception out of on_message is logged, and the next message is delivered all the same."""
        one, other = self.both()
        other.act = lambda message: 1 / 0
        one.channel.send(b"a")
        one.channel.send(b"b")
        self.spin(lambda: len(other.messages) == 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual(other.lost, [])


class DescriptorTests(ChannelCase):
    def test_with_their_messages(self) -> None:
        """Each message has its own descriptors, in order, whichever was sent before or behind it without any."""
        one, other = self.both()
        a, b, c = self.files(3)
        one.channel.send(b"none")
        one.channel.send(b"two", [a, b])
        one.channel.send(b"none again")
        one.channel.send(b"one", [c])
        one.channel.send(b"the same", [c])
        self.spin(lambda: len(other.messages) == 5)
        self.assertEqual([len(each) for each in other.descriptors], [0, 2, 0, 1, 1])
        flat = [each for descriptors in other.descriptors for each in descriptors]
        self.assertEqual([same(*pair) for pair in zip(flat, (a, b, c, c), strict=True)], [True] * 4)
        self.assertTrue(all(fcntl.fcntl(each, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for each in flat))

    def test_that_wait(self) -> None:
        """The caller may close descriptors when send returns, also where they have to wait behind other messages."""
        one, far = self.half()
        files = self.files(2)
        kept = [os.dup(each) for each in files]
        self.opened += kept
        one.channel.send(b"x" * 1_000_000, files[:1])
        one.channel.send(b"y" * 1_000_000, files[1:])
        one.channel.send(b"z")
        for file in files:
            os.close(file)
        other = self.end(far)
        self.spin(lambda: len(other.messages) == 3)
        self.assertEqual([len(each) for each in other.messages], [1_000_000, 1_000_000, 1])
        for descriptors, file in zip(other.descriptors, kept, strict=False):
            self.assertEqual([same(each, file) for each in descriptors], [True])

    def test_as_many_as_go(self) -> None:
        """253 descriptors go with one message, also with several of them on their way at one time."""
        one, other = self.both()
        files = self.files(MOST_DESCRIPTORS)
        for word in (b"a", b"b"):
            one.channel.send(word, files)
        self.spin(lambda: len(other.messages) == 2)
        for descriptors in other.descriptors:
            self.assertTrue(all(same(*pair) for pair in zip(descriptors, files, strict=True)))

    def test_chopped(self) -> None:
        """Descriptors that come with the first byte of a message are kept until the last byte is there."""
        one, far = self.half()
        (file,) = self.files(1)
        whole = frame(b"later", 1)
        far.send(frame(b"first"))
        self.pass_plainly(far, whole[:1], [file])
        self.spin(lambda: one.messages)
        for at in range(1, len(whole)):
            self.assertEqual(one.messages, [b"first"])
            far.send(whole[at : at + 1])
            self.turn()
        self.spin(lambda: len(one.messages) == 2)
        self.assertTrue(same(one.descriptors[1][0], file))

    def test_of_messages_that_never_come(self) -> None:
        """Descriptors of a message that is cut off, or that comes behind a close, are closed."""
        before = len(os.listdir("/proc/self/fd"))
        one, far = self.half()
        (file,) = self.files(1)
        self.pass_plainly(far, frame(b"lost", 1)[:-1], [file])
        self.turn()
        far.close()
        self.spin(lambda: one.lost)
        self.assertEqual(one.lost, ["it ended within a message"])
        two, other = self.both()
        two.act = lambda message: two.channel.close()
        other.channel.send(b"a")
        other.channel.send(b"b", [file])
        self.spin(lambda: two.messages and other.lost)
        self.assertEqual((two.messages, two.lost), ([b"a"], []))
        os.close(file)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_too_many_open_here(self) -> None:
        """Where descriptors cannot be received the channel is lost, and those that could be are closed."""
        import resource

        one, far = self.half()
        files = self.files(4)
        self.pass_plainly(far, frame(b"four", 4), files)
        free = os.dup(0)
        os.close(free)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 2, limits[1]))
        try:
            self.spin(lambda: one.lost)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        self.assertEqual(one.messages, [])
        self.assertIn("too many", one.lost[0])
        self.assertFalse(is_open(free))


class EndTests(ChannelCase):
    def test_close(self) -> None:
        """The other end hears of a close behind all that was sent; who closes hears nothing."""
        one, other = self.both()
        one.channel.send(b"bye")
        one.channel.close()
        one.channel.close()
        self.assertEqual(one.channel.fileno(), -1)
        self.spin(lambda: other.lost)
        self.assertEqual((other.messages, other.lost), ([b"bye"], ["the other end has closed it"]))
        self.assertEqual(one.lost, [])

    def test_what_waits_is_tried_once_more(self) -> None:
        """A close sends what there is room for by then, and drops the rest without waiting."""
        one, far = self.half()
        for _ in range(5):
            one.channel.send(b"x" * 100_000)
        waiting = one.channel.unsent
        count = len(far.recv(1_000_000))
        one.channel.close()
        far.setblocking(True)
        while more := far.recv(1_000_000):
            count += len(more)
        self.assertGreater(count, 5 * len(frame(b"x" * 100_000)) - waiting)

    def test_last_words_of_a_dying_end(self) -> None:
        """What the other end said before it died without reading is delivered before its death is told, once."""
        one, far = self.half()
        far.send(frame(b"refused"))
        one.channel.send(b"unread")
        far.close()
        one.channel.send(b"into the void")
        self.assertEqual((one.messages, one.lost), ([], []))
        self.spin(lambda: one.lost)
        self.turn()
        self.assertEqual(one.messages, [b"refused"])
        self.assertEqual(len(one.lost), 1)

    def test_reset(self) -> None:
        """An end that died with something unread is lost, for who only reads too."""
        one, far = self.half()
        one.channel.send(b"unread")
        far.close()
        self.spin(lambda: one.lost)
        self.assertEqual(len(one.lost), 1)

    def test_nonsense(self) -> None:
        """What breaks the rules ends the channel: too long, descriptors that are missing, or that belong to nothing."""
        (file,) = self.files(1)
        for payload, passed in (
            (HEAD.pack(MOST + 1, 0), []),
            (HEAD.pack(1, 254), []),
            (frame(b"one is missing", 1), []),
            (frame(b"one too many"), [file]),
        ):
            one, far = self.half()
            self.pass_plainly(far, payload, passed)
            self.spin(lambda one=one: one.lost)
            self.assertIn("nonsense", one.lost[0])

    def test_the_reactor_stops(self) -> None:
        """When the reactor drops everything the channel is lost like any other connection."""
        one, _ = self.half()
        self.reactor.disconnectAll()
        self.assertEqual(len(one.lost), 1)
        self.assertEqual(one.channel.fileno(), -1)

    def test_mistakes_at_the_end(self) -> None:
        """An exception out of on_lost is logged, and the channel is over."""
        one, far = self.half()
        one.channel._on_lost = lambda words: 1 / 0
        far.close()
        self.spin(lambda: one.channel.fileno() == -1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class StockChannelTests(ChannelTests):
    """The same on Twisted's own reactor."""

    kind = EPollReactor


class StockEndTests(EndTests):
    """The same on Twisted's own reactor."""

    kind = EPollReactor


class ChoppingTests(ChannelCase):
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 3)), min_size=1, max_size=8), st.data())
    def test_any_chopping(self, sent: list[tuple[bytes, int]], source: st.DataObject) -> None:
        """However the bytes are chopped on their way, messages and the number of their descriptors come out the same."""
        one, far = self.half()
        file = os.dup(0)
        for message, number in sent:
            whole = frame(message, number)
            cuts = sorted(source.draw(st.lists(st.integers(1, len(whole)), max_size=4)))
            parts = [part for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True) if (part := whole[a:b])]
            self.pass_plainly(far, parts[0], [file] * number)
            for part in parts[1:]:
                if source.draw(st.booleans()):
                    self.turn(1)
                far.send(part)
        os.close(file)
        self.spin(lambda: len(one.messages) == len(sent) or one.lost)
        self.assertEqual(
            [(message, len(own)) for message, own in zip(one.messages, one.descriptors, strict=True)], sent
        )
        self._close_all()
        self.made.clear()
        far.close()
