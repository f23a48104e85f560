"""A WebSocket backend made of `websockets` from PyPI, in threads of ours or as a process of its own that can be killed.

    python -m tests.kit.websocketing PORT

Promises: it echoes what it gets, message by message; a text `close CODE REASON` makes it close so; how each connection
ended is kept, in the order in which they ended; nothing outlives `stop()`. `connect` is the client to it: without the
proxies of the environment, without limits of its own, and with a deadline for the handshake.
"""

from __future__ import annotations

import http
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_to
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

DEADLINE = 30.0

#: What the backend speaks, best first.
SUBPROTOCOLS = ("superchat", "chat")

Talk = Callable[[ServerConnection], None]


def echo(connection: ServerConnection) -> None:
    """Send back each message as it came, text as text; close when told to."""
    for message in connection:
        if isinstance(message, str) and message.startswith("close "):
            _, code, reason = message.split(" ", 2)
            connection.close(int(code), reason)
            return
        connection.send(message)


def choose(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """A subprotocol that both know; none is needed."""
    return next((Subprotocol(name) for name in SUBPROTOCOLS if name in offered), None)


def make_server(talk: Talk, port: int = 0, **keys: Any) -> Server:
    """A server that is not serving yet."""
    return serve(talk, "127.0.0.1", port, max_size=None, ping_interval=None, close_timeout=DEADLINE, **keys)


class WebSocketBackend:
    """Talks to each connection by `talk`; paths that begin with /refused get 403 in place of a handshake."""

    def __init__(self, talk: Talk = echo) -> None:
        self.talk = talk
        self.connections: list[ServerConnection] = []
        self.ended: list[tuple[int | None, str]] = []
        self.changed = threading.Condition()
        self.server = make_server(self._talk, process_request=self._check, select_subprotocol=choose)
        self.port: int = self.server.socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def _check(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path.startswith("/refused"):
            return connection.respond(http.HTTPStatus.FORBIDDEN, "not you\n")
        return None

    def _talk(self, connection: ServerConnection) -> None:
        with self.changed:
            self.connections.append(connection)
            self.changed.notify_all()
        try:
            self.talk(connection)
            connection.close()
        except ConnectionClosed:
            pass
        finally:
            with self.changed:
                self.ended.append((connection.close_code, connection.close_reason or ""))
                self.changed.notify_all()

    def wait_for_ends(self, count: int = 1) -> list[tuple[int | None, str]]:
        """Close code and reason of those that have ended, once there are `count`."""
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.ended) >= count, DEADLINE):
                raise AssertionError(f"{len(self.ended)} connections have ended, not {count}")
            return list(self.ended)

    def stop(self) -> None:
        """Cut what is left."""
        self.server.shutdown()
        self.thread.join(DEADLINE)
        for connection in self.connections:
            connection.socket.close()


@contextmanager
def connect(port: int, path: str = "/", **keys: Any) -> Iterator[ClientConnection]:
    """A client's connection, closed in the end."""
    keys = {"proxy": None, "max_size": None, "ping_interval": None, "open_timeout": DEADLINE, **keys}
    connection = connect_to(f"ws://127.0.0.1:{port}{path}", close_timeout=DEADLINE, **keys)
    with connection:
        yield connection


if __name__ == "__main__":
    make_server(echo, int(sys.argv[1])).serve_forever()
