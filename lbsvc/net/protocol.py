"""What our HTTP connections are made of: Twisted's Protocol once more, as a class that can be compiled with its heirs.

Promises: does what twisted.internet.protocol.Protocol does. A compiled class that inherits from an ordinary one, as from
that, leaves weak references behind it that point at nothing (mypyc 2.4). Interfaces are declared by classImplements, here
and by its heirs, since a compiled class has no decorators (etc/compiled/hook.py).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import ILoggingContext, IProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import classImplements


class BareProtocol:
    """One side of a connection; what it does not care for does nothing."""

    connected = 0
    transport: Any = None
    factory: Any = None

    def makeConnection(self, transport: Any) -> None:  # noqa: N802 - Twisted's names
        """The connection is there."""
        self.connected = 1
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:  # noqa: N802
        """`transport` is set."""

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Something has come."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        """It is over, and `transport` of no more use."""

    def logPrefix(self) -> str:  # noqa: N802
        """Who is speaking, in a log."""
        return self.__class__.__name__


classImplements(BareProtocol, IProtocol, ILoggingContext)
