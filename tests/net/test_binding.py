"""Listening sockets: what a bind opens, what the system refuses, how many descriptors we ask for."""

from __future__ import annotations

import resource
import socket
from errno import EADDRINUSE, EADDRNOTAVAIL
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from lbsvc.config.schema import Bind, ListenerSettings
from lbsvc.core.books import ListenerBooks
from lbsvc.errors import SystemRefusal
from lbsvc.net.binding import open_sockets
from lbsvc.net.listener import Descriptors, Listener, raise_descriptor_limit
from tests.kit.builders import bind


class BindTestCase(SynchronousTestCase):
    def opened(self, given: Bind) -> list[socket.socket]:
        made = open_sockets(given, 10)
        for each in made:
            self.addCleanup(each.close)
        return made

    def names(self, made: list[socket.socket]) -> list[str]:
        return [each.getsockname()[0] for each in made]

    def resolving(self, *addresses: str, port: int = 0) -> None:
        """Every name has these addresses from now on."""
        four, six = socket.AF_INET, socket.AF_INET6
        found = [
            (six, 1, 6, "", (address, port, 0, 0)) if ":" in address else (four, 1, 6, "", (address, port))
            for address in addresses
        ]
        patched = patch("socket.getaddrinfo", return_value=found)
        patched.start()
        self.addCleanup(patched.stop)


class OpenTests(BindTestCase):
    def test_both_families(self) -> None:
        """ ":8080" is one socket of each family, on the same port; either can be connected to, and v6 is v6 only."""
        made = self.opened(bind(":0"))
        self.assertEqual(self.names(made), ["::", "0.0.0.0"])
        (port,) = {each.getsockname()[1] for each in made}
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port)).close()
        self.assertEqual(made[0].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY), 1)
        peers = [each.accept()[1][0] for each in made]
        self.assertEqual(peers, ["::1", "127.0.0.1"])

    def test_without_ipv6(self) -> None:
        """Where there is no IPv6, ":8080" is an IPv4 socket."""
        with patch("lbsvc.net.binding._has_ipv6", return_value=False):
            self.assertEqual(self.names(self.opened(bind(":0"))), ["0.0.0.0"])

    def test_literals(self) -> None:
        """An address is bound as it is."""
        self.assertEqual(self.names(self.opened(bind("127.0.0.2:0"))), ["127.0.0.2"])
        self.assertEqual(self.names(self.opened(bind("[::1]:0"))), ["::1"])

    def test_name(self) -> None:
        """A host name is bound with all of its addresses, each once."""
        self.assertIn("127.0.0.1", self.names(self.opened(bind("localhost:0"))))
        self.resolving("::1", "127.0.0.1", "::1", "127.0.0.2")
        self.assertEqual(self.names(self.opened(bind("lb.example:0"))), ["::1", "127.0.0.1", "127.0.0.2"])

    def test_address_of_another_machine(self) -> None:
        """An address that this machine has not does not keep a name from being bound, unless there is no other."""
        ours = socket.socket.bind

        def absent(made: socket.socket, address: tuple[str, int]) -> None:
            if address[0].startswith("192.0.2."):
                raise OSError(EADDRNOTAVAIL, "Cannot assign requested address")
            ours(made, address)

        self.resolving("192.0.2.1", "127.0.0.1")
        with patch("socket.socket.bind", absent):
            self.assertEqual(self.names(self.opened(bind("lb.example:0"))), ["127.0.0.1"])
        self.resolving("192.0.2.1", "192.0.2.2")
        with patch("socket.socket.bind", absent), self.assertRaises(OSError) as raised:
            open_sockets(bind("lb.example:0"), 10)
        self.assertEqual(raised.exception.errno, EADDRNOTAVAIL)

    def test_unknown_name(self) -> None:
        """A name that nobody knows is an OSError, with words."""
        with (
            patch("socket.getaddrinfo", side_effect=socket.gaierror(-2, "Name or service not known")),
            self.assertRaises(OSError) as raised,
        ):
            open_sockets(bind("lb.example:0"), 10)
        self.assertEqual(raised.exception.strerror, "Name or service not known")

    def test_taken(self) -> None:
        """A port that is taken in one family is refused, and the socket of the other is not left open."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            self.resolving("::1", "127.0.0.1", port=port)
            for given in (Bind("", port), Bind("lb.example", port)):
                with self.assertRaises(OSError) as raised:
                    open_sockets(given, 10)
                self.assertEqual(raised.exception.errno, EADDRINUSE)
            with socket.socket(socket.AF_INET6) as probe:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(("::", port))

    def test_options(self) -> None:
        """Listening sockets do not block, can be bound again at once, and hand TCP_NODELAY down."""
        (made,) = self.opened(bind("127.0.0.1:0"))
        self.assertFalse(made.getblocking())
        for level, option in ((socket.SOL_SOCKET, socket.SO_REUSEADDR), (socket.IPPROTO_TCP, socket.TCP_NODELAY)):
            self.assertEqual(made.getsockopt(level, option), 1)


class RefusalTests(BindTestCase):
    def test_every_refusal_at_once(self) -> None:
        """All binds that the system refuses are told together, and none of the others stays open."""
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            taken = [each.getsockname()[1] for each in (one, two)]
            (free,) = self.opened(bind("127.0.0.1:0"))
            number = free.getsockname()[1]
            free.close()
            binds = tuple(Bind("127.0.0.1", port) for port in (taken[0], number, taken[1]))
            settings = ListenerSettings("main", binds, "tcp")
            listener = Listener(
                settings, ListenerBooks("main", "tcp"), None, Descriptors(100), lambda peer, arrival: None
            )  # type: ignore[arg-type, return-value]
            with self.assertRaises(SystemRefusal) as raised:
                listener.bind()
        self.assertEqual(
            [(mistake.key, mistake.message) for mistake in raised.exception.mistakes],
            [("listeners.main.bind", f"cannot listen on 127.0.0.1:{port}: Address already in use") for port in taken],
        )
        socket.create_server(("127.0.0.1", number)).close()
        self.assertEqual(listener.addresses, [])


class DescriptorTests(SynchronousTestCase):
    def limits(self, soft: int, hard: int, refusal: Exception | None = None) -> tuple[int, list[Any]]:
        """What raise_descriptor_limit gives and sets where these limits hold."""
        asked: list[Any] = []

        def setrlimit(which: int, pair: tuple[int, int]) -> None:
            asked.append(pair)
            if refusal is not None:
                raise refusal

        with (
            patch.object(resource, "getrlimit", return_value=(soft, hard)),
            patch.object(resource, "setrlimit", setrlimit),
        ):
            return raise_descriptor_limit(), asked

    def test_raised(self) -> None:
        """The soft limit is raised to the hard one, which is then in force."""
        self.assertEqual(self.limits(1024, 4096), (4096, [(4096, 4096)]))

    def test_nothing_to_raise(self) -> None:
        """Where they are equal nothing is asked for."""
        self.assertEqual(self.limits(4096, 4096), (4096, []))

    def test_refused(self) -> None:
        """A system that refuses leaves us with what we have."""
        for refusal in (ValueError("not allowed"), PermissionError(1, "no")):
            self.assertEqual(self.limits(1024, 4096, refusal)[0], 1024)

    def test_without_limit(self) -> None:
        """No limit is a large number."""
        self.assertEqual(self.limits(resource.RLIM_INFINITY, resource.RLIM_INFINITY)[0], 1 << 20)

    def test_ceiling(self) -> None:
        """Some are kept for other things: 256, but of a small limit not more than half."""
        for limit, last in ((4096, 3839), (1024, 767), (100, 49)):
            descriptors = Descriptors(limit)
            self.assertEqual((descriptors.is_scarce(last), descriptors.is_scarce(last + 1)), (False, True))

    def test_said_once(self) -> None:
        """That accepting pauses is said once, however often it does."""
        said: list[int] = []
        descriptors = Descriptors(1000, said.append)
        descriptors.say()
        descriptors.say()
        self.assertEqual(said, [1000])
        Descriptors(1000).say()  # to nobody
