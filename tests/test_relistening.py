"""Listeners that change at run time: which sockets stay, go and come, and what becomes of who waits in their queues."""

from __future__ import annotations

import os
import socket
from errno import EMFILE
from typing import Any
from unittest.mock import patch

from lbsvc.config.schema import Bind
from lbsvc.net import sockets
from lbsvc.net.binding import open_sockets
from tests.kit import builders
from tests.relistened import ListenersCase, answering


class CarriedTests(ListenersCase):
    def test_renamed(self) -> None:
        """Who waits in the queue of a listener that gets another name is answered by the one that has its bind then."""
        (port,) = self.free()
        self.start(answering("old", f"127.0.0.1:{port}"))
        (before,) = self.listeners.listeners[0].ports
        waiting = [self.client(port) for _ in range(20)]
        self.change(answering("new", f"127.0.0.1:{port}"))
        self.assertIs(self.listeners.listeners[0].ports[0], before)
        self.assertEqual({self.ask(far) for far in waiting}, {b"new"})
        self.assertEqual(self.fresh(port), b"new")

    def test_exchanged(self) -> None:
        """Two listeners that exchange their binds keep both sockets, and who waits is answered by the new owner."""
        one, two = self.free(2)
        self.start(answering("a", f"127.0.0.1:{one}"), answering("b", f"127.0.0.1:{two}"))
        ports = [listener.ports[0] for listener in self.listeners.listeners]
        waiting = [self.client(one), self.client(two)]
        self.change(answering("a", f"127.0.0.1:{two}"), answering("b", f"127.0.0.1:{one}"))
        self.assertEqual([listener.ports[0] for listener in self.listeners.listeners], ports[::-1])
        self.assertEqual([self.ask(far) for far in waiting], [b"b", b"a"])

    def test_unchanged(self) -> None:
        """What does not change is the same object: listener, port, site, table; and nothing is said of it."""
        (port,) = self.free()
        settings = answering("main", f"127.0.0.1:{port}")
        self.start(settings)
        served = self.listeners.served["main"]
        before = (served, served.listener, served.listener.ports[0], served.site, served.site.table)
        self.events.clear()
        changes = self.change(settings, answering("other", "127.0.0.1:0"))
        self.assertEqual(changes, ["listeners.other: added"])
        after = (
            self.listeners.served["main"],
            served.listener,
            served.listener.ports[0],
            served.site,
            served.site.table,
        )
        self.assertEqual(before, after)
        self.assertEqual([event for event, _ in self.events], ["listener.bound"])

    def test_equal_binds_of_port_0(self) -> None:
        """Of several equal binds each listener keeps its own."""
        self.start(answering("a", "127.0.0.1:0"), answering("b", "127.0.0.1:0"))
        before = [listener.ports[0] for listener in self.listeners.listeners]
        self.change(answering("b", "127.0.0.1:0", text="B"), answering("a", "127.0.0.1:0", text="A"))
        self.assertEqual([listener.ports[0] for listener in self.listeners.listeners], before[::-1])
        port = before[0].getHost().port
        self.assertEqual(self.fresh(port), b"A")

    def test_protocol(self) -> None:
        """One that turns from http to tcp keeps its socket; who waits gets the new protocol, who was there is seen off."""
        (port,) = self.free()
        backend = socket.create_server(("127.0.0.1", 0))
        self.ends.append(backend)
        target = f"127.0.0.1:{backend.getsockname()[1]}"
        pool = builders.pool(target, health_check=None)
        self.start(answering("main", f"127.0.0.1:{port}"), pool)
        idle = self.client(port)
        self.assertEqual(self.ask(idle), b"main")
        waiting = self.client(port)
        before = self.listeners.listeners[0].ports
        self.change(builders.listener(f"127.0.0.1:{port}", protocol="tcp", pool="web"), pool)
        self.assertEqual(self.listeners.listeners[0].ports, before)
        self.spin(lambda: self.is_closed(idle))
        waiting.sendall(b"hello")
        backend.settimeout(0)
        accepted: list[socket.socket] = []

        def has_come() -> bool:
            try:
                accepted.append(backend.accept()[0])
            except BlockingIOError:
                return False
            return True

        self.spin(has_come)
        self.ends += accepted
        accepted[0].setblocking(False)
        heard: list[bytes] = []

        def has_heard() -> bool:
            try:
                heard.append(accepted[0].recv(5))
            except BlockingIOError:
                return False
            return True

        self.spin(has_heard)
        self.assertEqual(heard, [b"hello"])
        self.assertEqual([books.protocol for books in self.listeners.books], ["tcp"])

    def test_unix(self) -> None:
        """A unix socket that is carried over keeps its file, the very same, until its bind goes; who waits is answered."""
        path = self.path()
        self.start(answering("old", Bind(path, 0)))
        inode = os.stat(path).st_ino
        waiting = self.client(path)
        self.change(answering("new", Bind(path, 0)))
        self.assertEqual(os.stat(path).st_ino, inode)
        self.assertEqual(self.ask(waiting), b"new")
        self.assertEqual(self.fresh(path), b"new")
        late = self.client(path)
        self.change(answering("new", "127.0.0.1:0"))
        self.assertFalse(os.path.exists(path))
        self.assertEqual(self.ask(late), b"new")

    def test_backlog(self) -> None:
        """Another backlog holds at once, on the same socket."""
        (port,) = self.free()
        self.start(answering("main", f"127.0.0.1:{port}", backlog=200))
        (before,) = self.listeners.listeners[0].ports
        self.assertEqual(
            self.change(answering("main", f"127.0.0.1:{port}", backlog=1)), ["listeners.main.backlog: 200 -> 1"]
        )
        self.assertIs(self.listeners.listeners[0].ports[0], before)
        tries = [socket.socket() for _ in range(10)]
        self.ends += tries
        for each in tries:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        connected = [each for each in tries if each.connect_ex(("127.0.0.1", port)) == 0 or _is_connected(each)]
        self.assertLessEqual(len(connected), 2)


def _is_connected(each: socket.socket) -> bool:
    """Whether the handshake of TCP is over."""
    return each.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x01"


class GoneTests(ListenersCase):
    def test_removed(self) -> None:
        """Who waits in the queue of a listener that is removed is answered, and then told to go; the port is free."""
        one, two = self.free(2)
        self.start(answering("a", f"127.0.0.1:{one}"), answering("b", f"127.0.0.1:{two}"))
        waiting = [self.client(two) for _ in range(5)]
        self.events.clear()
        self.assertEqual(self.change(answering("a", f"127.0.0.1:{one}")), ["listeners.b: removed"])
        self.assert_refused(two)
        for far in waiting:
            far.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = self.read_answer(far)
            self.assertIn(b"\r\nConnection: close\r\n", answer)
            self.assertTrue(answer.endswith(b"\r\n\r\nb"))
            self.spin(lambda far=far: self.is_closed(far))
        self.assertEqual(self.events, [("listener.closed", "b accepts no more")])
        self.assertEqual([books.name for books in self.listeners.books], ["a", "b"])
        for far in waiting:
            far.close()
        self.spin(lambda: [books.name for books in self.listeners.books] == ["a"])

    def test_one_bind_of_two(self) -> None:
        """A bind that goes from a listener that stays is emptied first; the other one does not notice."""
        one, two = self.free(2)
        self.start(answering("a", f"127.0.0.1:{one}", f"127.0.0.1:{two}"))
        before = self.listeners.listeners[0].ports[0]
        waiting = self.client(two)
        self.change(answering("a", f"127.0.0.1:{one}"))
        self.assertEqual(self.listeners.listeners[0].ports, [before])
        self.assertEqual(self.ask(waiting), b"a")
        self.assert_refused(two)
        self.assertIn(("listener.closed", f"a does not listen on 127.0.0.1:{two} any more"), self.events)

    def test_come(self) -> None:
        """A new listener is there when the change is made, and not before."""
        (port,) = self.free()
        self.start(answering("a", "127.0.0.1:0"))
        new, pools, plan = self.prepare(answering("a", "127.0.0.1:0"), answering("b", f"127.0.0.1:{port}"))
        far = self.client(port)
        far.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.turn(10)
        self.assertFalse(self.is_closed(far))
        pools.commit()
        plan.commit()
        self.settings = new
        self.assertTrue(self.read_answer(far).endswith(b"b"))


class OverlappingTests(ListenersCase):
    def test_narrowed_and_widened(self) -> None:
        """ ":80" becomes "127.0.0.1:80" and back: who waits meanwhile is answered, whoever comes then, too."""
        (port,) = self.free()
        self.start(answering("main", f":{port}"))
        for bind in (f"127.0.0.1:{port}", f":{port}", f"127.0.0.1:{port}"):
            waiting = [self.client(port) for _ in range(3)]
            self.change(answering("main", bind))
            self.assertEqual([self.ask(far) for far in waiting], [b"main"] * 3)
            self.assertEqual(self.fresh(port), b"main")
        self.assert_refused(port, "127.0.0.2")

    def test_of_another(self) -> None:
        """The same where the one that goes is removed, and the one that comes has another name."""
        (port,) = self.free()
        self.start(answering("old", f"0.0.0.0:{port}"))
        waiting = self.client(port)
        self.change(answering("new", f"127.0.0.1:{port}"))
        self.assertEqual(self.ask(waiting), b"old")
        self.assertEqual(self.fresh(port), b"new")

    def test_way_back(self) -> None:
        """Where the new one is refused in the end the old one is there again, and serves as before."""
        (port,) = self.free()
        old = answering("main", f"0.0.0.0:{port}")
        self.start(old)
        waiting = self.client(port)
        asked: list[str] = []

        def refuse(bind: Bind, backlog: int) -> list[socket.socket]:
            asked.append(str(bind))
            if bind.host == "127.0.0.1" and len(asked) > 1:
                raise OSError(EMFILE, "Too many open files")
            return open_sockets(bind, backlog)

        with patch.object(self.listeners._around, "open_bind", refuse):
            refusals = self.refused(answering("main", f"127.0.0.1:{port}"))
        self.assertEqual(refusals, [f"listeners.main.bind: cannot listen on 127.0.0.1:{port}: Too many open files"])
        self.assertEqual(asked, [f"127.0.0.1:{port}", f"127.0.0.1:{port}", f"0.0.0.0:{port}"])
        self.assertEqual(self.ask(waiting), b"main")
        self.assertEqual(self.fresh(port, "127.0.0.2"), b"main")
        self.assertEqual(self.change(old), [])

    def test_abandoned(self) -> None:
        """A change that is given up after it was prepared: who came meanwhile is answered as ever, the old bind is back."""
        (port,) = self.free()
        self.start(answering("main", f"0.0.0.0:{port}"))
        _, pools, plan = self.prepare(answering("main", f"127.0.0.1:{port}", text="new"))
        between = self.client(port)
        plan.abandon()
        pools.abandon()
        self.assertEqual(self.ask(between), b"main")
        self.assertEqual(self.fresh(port, "127.0.0.2"), b"main")

    def test_no_way_back(self) -> None:
        """Where the old one cannot be had again either that is told, and the next change tries again."""
        (port,) = self.free()
        old = answering("main", f"0.0.0.0:{port}")
        self.start(old)
        calls: list[Bind] = []

        def refuse(bind: Bind, backlog: int) -> list[socket.socket]:
            calls.append(bind)
            if len(calls) > 1:
                raise OSError(EMFILE, "Too many open files")
            return open_sockets(bind, backlog)

        with patch.object(self.listeners._around, "open_bind", refuse):
            refusals = self.refused(answering("main", f"127.0.0.1:{port}"))
        self.assertEqual(len(refusals), 2)
        self.assertIn("listener.lost", [event for event, _ in self.events])
        self.assert_refused(port)
        self.change(old)
        self.assertEqual(self.fresh(port), b"main")

    def test_other_spelling_of_a_path(self) -> None:
        """A unix socket by another spelling of its path is one that overlaps: its file is made anew."""
        path = self.path()
        folder, name = os.path.split(path)
        self.start(answering("main", Bind(path, 0)))
        waiting = self.client(path)
        self.change(answering("main", Bind(f"{folder}/./{name}", 0)))
        self.assertEqual(self.ask(waiting), b"main")
        self.assertEqual(self.fresh(path), b"main")


class RefusedTests(ListenersCase):
    def test_taken(self) -> None:
        """A bind that fails leaves everything as it was, and every one that fails is told."""
        (port, *free) = self.free(3)
        taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.ends += taken
        numbers = [each.getsockname()[1] for each in taken]
        self.start(answering("main", f"127.0.0.1:{port}"))
        before = self.listeners.served["main"], self.listeners.listeners[0].ports
        waiting = self.client(port)
        refusals = self.refused(
            answering("main", f"127.0.0.1:{free[0]}", f"127.0.0.1:{numbers[0]}", text="new"),
            answering("other", f"127.0.0.1:{free[1]}", f"127.0.0.1:{numbers[1]}"),
        )
        words = "cannot listen on 127.0.0.1:{}: Address already in use"
        self.assertEqual(
            refusals,
            [
                f"listeners.main.bind: {words.format(numbers[0])}",
                f"listeners.other.bind: {words.format(numbers[1])}",
            ],
        )
        self.assertEqual((self.listeners.served["main"], self.listeners.listeners[0].ports), before)
        for each in free:
            self.assert_refused(each)
        self.assertEqual(self.ask(waiting), b"main")
        self.assertEqual(self.fresh(port), b"main")

    def test_overlapping_is_left_alone(self) -> None:
        """While anything else is wrong no socket that is in the way is closed."""
        (port,) = self.free()
        taken = socket.create_server(("127.0.0.1", 0))
        self.ends.append(taken)
        self.start(answering("main", f"0.0.0.0:{port}"))
        before = self.listeners.listeners[0].ports
        number = taken.getsockname()[1]
        self.assertEqual(len(self.refused(answering("main", f"127.0.0.1:{port}", f"127.0.0.1:{number}"))), 1)
        self.assertEqual(self.listeners.listeners[0].ports, before)

    def test_no_descriptors(self) -> None:
        """Ports are had before anything changes: want of descriptors is a refusal, and no file is left."""
        path = self.path()
        self.start(answering("main", "127.0.0.1:0"))

        def fail(*given: Any) -> Any:
            raise OSError(EMFILE, "Too many open files")

        with patch.object(sockets, "adopt", fail):
            (refusal,) = self.refused(answering("main", Bind(path, 0)))
        self.assertIn("Too many open files", refusal)
        self.assertFalse(os.path.exists(path))

    def test_abandoned(self) -> None:
        """A plan that is given up has left nothing behind."""
        path = self.path()
        self.start(answering("main", "127.0.0.1:0"))
        _, pools, plan = self.prepare(answering("main", Bind(path, 0)))
        self.assertTrue(os.path.exists(path))
        plan.abandon()
        pools.abandon()
        self.assertFalse(os.path.exists(path))
        self.assertEqual(self.fresh(self.listeners.listeners[0].ports[0].getHost().port), b"main")
