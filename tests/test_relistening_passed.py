"""Listeners that change at run time: sockets that systemd has passed, and ports of a reactor of Twisted's."""

from __future__ import annotations

import os
import socket

from twisted.internet.selectreactor import SelectReactor

from lbsvc.config.schema import Bind
from tests.net.test_listener import Ordinary
from tests.relistened import ListenersCase, answering


class PassedTests(ListenersCase):
    def passed(self) -> socket.socket:
        made = socket.create_server(("127.0.0.1", 0))
        self.ends.append(made)
        return made

    def test_come_and_go(self) -> None:
        """What systemd has passed is served, left, and served again: it is never shut down, nor is its queue lost."""
        made = self.passed()
        port = made.getsockname()[1]
        bind = Bind("systemd:web", 0)
        other = answering("other", "127.0.0.1:0")
        self.start(answering("main", bind), other, passed={"web": [made]})
        self.assertEqual(self.listeners.listeners[0].addresses, [f"127.0.0.1:{port}"])
        self.assertEqual(self.fresh(port), b"main")
        waiting = self.client(port)
        self.change(other)
        self.assertEqual(self.ask(waiting), b"main")
        self.assertEqual(made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), 1)
        late = self.client(port)  # the socket is systemd's: it goes on taking connections
        self.turn(5)
        self.change(answering("again", bind), other)
        self.assertEqual(self.ask(late), b"again")

    def test_file(self) -> None:
        """A passed unix socket's file is systemd's, and stays."""
        path = self.path()
        made = socket.socket(socket.AF_UNIX)
        made.bind(path)
        made.listen()
        self.ends.append(made)
        other = answering("other", "127.0.0.1:0")
        self.start(answering("main", Bind("systemd:web", 0)), other, passed={"web": [made]})
        self.assertEqual(self.fresh(path), b"main")
        self.change(other)
        self.assertTrue(os.path.exists(path))

    def test_unknown_name(self) -> None:
        """A name that nothing was passed under is a refusal that says what was."""
        self.start(answering("main", "127.0.0.1:0"), passed={"web": [self.passed()]})
        (refusal,) = self.refused(answering("main", Bind("systemd:wbe", 0)))
        self.assertIn("cannot listen on systemd:wbe", refusal)
        self.assertIn("web", refusal)


class SelectTests(Ordinary, ListenersCase):
    """On a reactor of Twisted's, whose ports are made to do the same (net/ordinary.py)."""

    kind = SelectReactor

    def test_renamed_paused_and_gone(self) -> None:
        """Ports are carried over there too, also one that pauses; and what waits is answered before a socket closes."""
        one, two = self.free(2)
        self.start(answering("old", f"127.0.0.1:{one}", f"127.0.0.1:{two}", max_connections=1))
        first, waiting = self.client(one), self.client(one)
        self.assertEqual(self.ask(first), b"old")
        gone = self.client(two)
        self.change(answering("new", f"127.0.0.1:{one}"))
        self.assertEqual(self.ask(waiting), b"new")
        self.assertEqual(self.ask(gone), b"old")
        self.assert_refused(two)
        self.assertEqual(self.fresh(one), b"new")
