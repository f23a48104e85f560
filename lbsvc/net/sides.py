"""The two ends of a relay, as their transports see them: what comes from one is written to the other at once.

Promises: a chunk costs one call of the other transport's `write`, a length and a clock reading (tests/bench, `l4`); as a
producer an end pauses and resumes the reading of the other one, and nothing else: what the loss of an end means for the
other is decided by the relay alone (net/carrying.py), which is told of every event. Made by the relay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

if TYPE_CHECKING:
    from lbsvc.net.carrying import Carrier


@implementer(IHalfCloseableProtocol, IPushProducer)
class Side(Protocol):
    """One end of a relay. As a producer it stands for what the other end sends to this one."""

    #: None before it is connected and after it is lost
    transport: Any
    #: the other end, once both are connected
    other: Side

    has_finished = False  # no more bytes come from here
    is_full = False  # what we send here is not read

    def __init__(self, relay: Carrier) -> None:
        self.relay = relay

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name: this end reads too slowly
        self.is_full = True
        self.other.transport.pauseProducing()

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name: this end reads on
        self.is_full = False
        if not self.other.has_finished:
            self.other.transport.resumeProducing()

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The connection is lost; connectionLost follows and knows what to do."""

    def readConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        self.has_finished = True
        self.relay.side_finished(self)

    def writeConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """Our half-close has gone out; the other half goes on."""

    def close_writing(self) -> None:
        """Nothing more will be sent here: flush, then say so."""
        transport = self.transport
        # A producer that is paused when the queue runs empty would make Twisted forget the half-close.
        transport.unregisterProducer()
        transport.loseWriteConnection()

    def close(self) -> None:
        """Flush, then close."""
        transport = self.transport
        if transport is not None:
            transport.unregisterProducer()  # the same, of the close
            transport.loseConnection()

    def withhold_end(self) -> None:
        """Where TLS is spoken here: end without saying so."""
        if hasattr(self.transport, "withhold_end"):
            self.transport.withhold_end()

    def drop_rest(self) -> None:
        """Go on reading for nobody, until it has finished."""
        if self.relay.is_piped:
            self.transport.pipe_to(None)
        self.transport.resumeProducing()

    def forget(self) -> None:
        """Both ends are lost; nothing is called here any more."""
        self.relay = self.other = None  # type: ignore[assignment]

    def abort(self) -> None:
        """Close at once, with a reset."""
        if self.transport is not None:
            self.transport.abortConnection()


class Downstream(Side):
    """The client's end."""

    @override
    def makeConnection(self, transport: Any) -> None:
        self.connected = 1
        self.transport = transport
        self.relay.start()

    @override
    def dataReceived(self, data: bytes) -> None:
        relay = self.relay
        relay.bytes_in += len(data)
        write = relay.write_up
        if write is None:
            relay.hold(data)
        else:
            relay.active_at = relay.seconds()
            write(data)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        relay = self.relay
        if not relay.is_over:
            relay.collect()
        self.transport = None
        relay.downstream_lost(reason)


class Upstream(Side):
    """The backend's end."""

    @override
    def makeConnection(self, transport: Any) -> None:
        self.connected = 1
        self.transport = transport
        self.relay.connected(self)

    @override
    def dataReceived(self, data: bytes) -> None:
        relay = self.relay
        relay.bytes_out += len(data)
        relay.active_at = relay.seconds()
        relay.write_down(data)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        relay = self.relay
        if not relay.is_over:
            relay.collect()
        self.transport = None
        relay.upstream_lost(reason)
