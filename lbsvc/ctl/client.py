"""The admin interface, asked over tcp or a unix socket: calls, and the stream of events.

Promises: whatever answers, or does not, a call gives a plain value or raises `Failed`: `Refused` where lbsvc says no,
with its own words, `Unreachable` where nothing of lbsvc can be had there. Every wait has an end, every answer a largest
size. No proxy of the environment is asked, no redirect followed. Used by all commands that ask. Times are seconds.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from typing_extensions import override

import lbsvc

EX_FAILED: Final = 1
EX_USAGE: Final = 64
EX_UNREACHABLE: Final = 69
EX_CONFIG: Final = 78
EX_INTERRUPTED: Final = 130

#: For a connection, and for an answer.
PATIENCE: Final = 10.0
#: For a connection by https: who does not speak it may wait for more of what is no request to him.
HANDSHAKE_PATIENCE: Final = 3.0
#: For what reads a configuration, and perhaps hundreds of certificates.
LONG_PATIENCE: Final = 120.0
#: For what starts processes, one after the other, each of which is waited for.
LONGEST_PATIENCE: Final = 900.0
#: The service says something each ten seconds at least.
STREAM_PATIENCE: Final = 35.0
#: The largest answer, and the largest event.
LARGEST: Final = 64 * 1024 * 1024
#: Of an answer that is not ours, for a message.
_SHOWN: Final = 200

_API: Final = "/api/v1"
_TOKEN: Final = re.compile(r"[\x21-\x7e\xa0-\U0010ffff]+")


class Failed(Exception):
    """A command has failed: what is said on standard error, line by line, and the exit status."""

    code = EX_FAILED

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines

    def problem(self) -> dict[str, Any]:
        """The same for --json."""
        return {"title": "failed", "detail": "\n".join(self.lines)}


class Unreachable(Failed):
    """Nobody is there, or somebody who is not lbsvc."""

    code = EX_UNREACHABLE

    @override
    def problem(self) -> dict[str, Any]:
        return {**super().problem(), "title": "cannot reach the service"}


class Refused(Failed):
    """lbsvc says no."""

    def __init__(self, status: int, title: str, detail: str, errors: tuple[str, ...] = (), hint: str = "") -> None:
        said = errors or (f"lbctl: {detail}",)
        super().__init__(*said, *((f"lbctl: {hint}",) if hint else ()))
        self.status = status
        self.title = title
        self.detail = detail
        self.errors = errors

    @override
    def problem(self) -> dict[str, Any]:
        found = {"status": self.status, "title": self.title, "detail": self.detail}
        return {**found, "errors": list(self.errors)} if self.errors else found


@dataclass(frozen=True)
class Place:
    """Where the admin interface is."""

    written: str
    host: str  # or the path of a unix socket
    port: int  # 0: a unix socket
    is_secure: bool = False


def parse_place(text: str) -> Place:
    """http://HOST:PORT, https://…, HOST:PORT or unix:PATH. Raises ValueError with what it must be."""
    wrong = ValueError("must be http://HOST:PORT or unix:PATH")
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path or "\0" in path:
            raise wrong
        return Place(text, path, 0)
    url = urlsplit(text if "://" in text else f"http://{text}")
    if url.scheme not in ("http", "https") or not url.hostname or re.search(r"[\x00-\x20\x7f]", text):
        raise wrong
    if url.username is not None or url.password is not None:
        raise ValueError("must hold no token: that is for LBCTL_TOKEN or --token-file")
    if url.path not in ("", "/") or url.query or url.fragment:
        raise ValueError("must end after the port, as in http://127.0.0.1:9901")
    is_secure = url.scheme == "https"
    port = url.port if url.port is not None else 443 if is_secure else 80
    if port == 0:
        raise wrong
    try:
        url.hostname.encode("idna")
    except UnicodeError:
        raise wrong from None
    return Place(text, url.hostname, port, is_secure)


def check_token(text: str) -> str:
    """A token as a header can hold it. Raises ValueError."""
    token = text.strip()
    if not token or not _TOKEN.fullmatch(token):
        raise ValueError("must hold a token: one word of visible characters")
    return token


class _UnixConnection(http.client.HTTPConnection):
    """A connection to a socket of this machine."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    @override
    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self._path)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


class Client:
    """One admin interface, and the token for it."""

    def __init__(self, place: Place, token: str = "", patience: float = PATIENCE) -> None:
        self.place = place
        self._token = token
        self._patience = patience

    # -- calls

    def status(self) -> dict[str, Any]:
        """The status object."""
        found = self.ask("GET", "/status")
        if not isinstance(found, dict) or not isinstance(found.get("pools"), list):
            raise self._foreign()
        return found

    def pool(self, pool: str) -> dict[str, Any]:
        """One pool's part of it."""
        found = self.ask("GET", f"/pools/{_quoted(pool)}")
        if not isinstance(found, dict) or not isinstance(found.get("backends"), list):
            raise self._foreign()
        return found

    def health(self) -> dict[str, dict[str, bool]]:
        """By pool and address."""
        found = self.ask("GET", "/health")
        if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
            raise self._foreign()
        return found

    def config(self) -> Any:
        """The configuration in force."""
        return self.ask("GET", "/config")

    def reload(self) -> dict[str, Any]:
        """Read the file anew: generation and changes."""
        return self._changed("POST", "/reload", None, LONG_PATIENCE)

    def workers(self) -> dict[str, Any]:
        """The process that answers, `pid`, and each that carries traffic, `workers`."""
        found = self.ask("GET", "/workers")
        if not isinstance(found, dict) or not isinstance(found.get("workers"), list):
            raise self._foreign()
        return found

    def restart_workers(self) -> dict[str, Any]:
        """Replace them one by one: how many, `restarted`."""
        return self._done("/workers/restart", "restarted")

    def upgrade(self) -> dict[str, Any]:
        """Have the new program take over: its process, `pid`."""
        return self._done("/upgrade", "pid")

    def _done(self, path: str, key: str) -> dict[str, Any]:
        found = self.ask("POST", path, None, LONGEST_PATIENCE)
        if not isinstance(found, dict) or not isinstance(found.get(key), int):
            raise self._foreign()
        return found

    def add(self, pool: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A backend comes."""
        return self._changed("POST", f"/pools/{_quoted(pool)}/backends", fields)

    def change(self, pool: str, name: str, **fields: Any) -> dict[str, Any]:
        """Its weight or state."""
        return self._changed("PATCH", f"/pools/{_quoted(pool)}/backends/{_quoted(name)}", fields)

    def remove(self, pool: str, name: str, drain: float | None = None) -> dict[str, Any]:
        """A backend goes; what is left after `drain` seconds is cut."""
        query = "" if drain is None else f"?drain={drain:.3f}"
        return self._changed("DELETE", f"/pools/{_quoted(pool)}/backends/{_quoted(name)}{query}", None)

    def _changed(self, method: str, path: str, body: Any, patience: float | None = None) -> dict[str, Any]:
        found = self.ask(method, path, body, patience)
        if not isinstance(found, dict) or not isinstance(found.get("changes"), list) or "generation" not in found:
            raise self._foreign()
        return found

    def ask(self, method: str, path: str, body: Any = None, patience: float | None = None) -> Any:
        """One call of the API: what its answer holds."""
        deadline = time.monotonic() + (patience or self._patience)
        connection = self._connection(patience or self._patience)
        with closing(connection):
            try:
                response, sock = self._send(
                    connection, method, path, body, "application/json", patience or self._patience
                )
                text = b"".join(_pieces(response, sock, deadline))
            except (OSError, http.client.HTTPException) as error:
                raise self._gone(error) from None
        if response.status >= 300:
            raise self._refused(response, text)
        return self._read(text)

    def events(self, only: str | None = None) -> Iterator[tuple[str, Any]]:
        """Kind and content of each event, until the service ends the stream."""
        connection = self._connection(self._patience)
        with closing(connection):
            try:
                path = "/events" if only is None else f"/events?only={only}"
                response, sock = self._send(connection, "GET", path, None, "text/event-stream", self._patience)
                if response.status >= 300:
                    text = b"".join(_pieces(response, sock, time.monotonic() + self._patience))
                    raise self._refused(response, text)
                if response.headers.get_content_type() != "text/event-stream":
                    raise self._foreign()
                sock.settimeout(STREAM_PATIENCE)
                for kind, text in server_sent(response):
                    yield kind, self._read(text)
            except (OSError, http.client.HTTPException) as error:
                raise self._gone(error) from None

    # -- on the wire

    def _connection(self, patience: float) -> http.client.HTTPConnection:
        place = self.place
        if not place.port:
            return _UnixConnection(place.host, patience)
        if place.is_secure:
            secured = ssl.create_default_context()
            least = min(patience, HANDSHAKE_PATIENCE)
            return http.client.HTTPSConnection(place.host, place.port, timeout=least, context=secured)
        return http.client.HTTPConnection(place.host, place.port, timeout=patience)

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Any, accept: str, patience: float
    ) -> tuple[http.client.HTTPResponse, socket.socket]:
        headers: dict[str, Any] = {"Accept": accept, "Connection": "close", "User-Agent": f"lbctl/{lbsvc.__version__}"}
        if self._token:
            headers["Authorization"] = b"Bearer " + self._token.encode("utf-8")
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.connect()
        sock: socket.socket = connection.sock  # getresponse forgets it, and reading needs its deadline
        sock.settimeout(patience)
        connection.request(method, _API + path, None if body is None else json.dumps(body).encode(), headers)
        return connection.getresponse(), sock

    def _read(self, text: bytes) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise self._foreign() from None

    # -- what went wrong

    def _foreign(self) -> Unreachable:
        return Unreachable(f"lbctl: what answers at {self.place.written} is not the admin interface of lbsvc")

    def _gone(self, error: Exception) -> Unreachable:
        is_foreign = isinstance(error, (TimeoutError, ssl.SSLError, ConnectionError))
        if (
            self.place.is_secure
            and is_foreign
            and not isinstance(error, (ssl.CertificateError, ConnectionRefusedError))
        ):
            why = "https is not spoken there: the admin interface of lbsvc speaks http, over HOST:PORT or unix:PATH"
        elif isinstance(error, TimeoutError):
            why = "no answer in time"
        elif isinstance(error, OSError):
            why = (error.strerror if error.strerror else str(error)) or type(error).__name__
        else:
            why = f"no HTTP that can be read ({type(error).__name__})"
        return Unreachable(
            f"lbctl: cannot reach {self.place.written}: {why}",
            "lbctl: does the service run? where its admin interface is, --admin or LBCTL_ADMIN says",
        )

    def _refused(self, response: http.client.HTTPResponse, text: bytes) -> Failed:
        problem: Any = None
        if response.headers.get_content_type() == "application/problem+json":
            try:
                problem = json.loads(text)
            except (ValueError, RecursionError):
                pass
        if not isinstance(problem, dict):
            if response.status < 400:
                return self._foreign()
            first = text[:_SHOWN].decode("utf-8", "replace").strip().partition("\n")[0]
            said = f"{response.status} {response.reason}" + (f": {first}" if first else "")
            return Refused(response.status, response.reason, f"{self.place.written} says {said}")
        errors = problem.get("errors")
        lines = tuple(map(str, errors)) if isinstance(errors, list) else ()
        detail, title = str(problem.get("detail", "")), str(problem.get("title", ""))
        return Refused(response.status, title, detail or title, lines, self._hint(response.status))

    def _hint(self, status: int) -> str:
        if status == 401:
            return "the token was not taken" if self._token else "give the token: LBCTL_TOKEN, or --token-file FILE"
        if status == 421:
            return f"{self.place.host} has to stand in admin.hosts, or use the address"
        return ""


def server_sent(response: http.client.HTTPResponse) -> Iterator[tuple[str, bytes]]:
    """Kind and content of each server-sent event (as our service writes them: lines end with LF)."""
    rest = b""
    searched = 0
    while piece := response.read1(1 << 16):
        rest += piece
        begin = 0
        while (end := rest.find(b"\n\n", max(begin, searched))) >= 0:
            kind, lines = "message", []
            for line in rest[begin:end].split(b"\n"):
                name, _, value = line.partition(b":")
                if name == b"event":
                    kind = value.strip().decode("utf-8", "replace")
                elif name == b"data":
                    lines.append(value.removeprefix(b" "))
            begin = end + 2
            if lines:
                yield kind, b"\n".join(lines)
        rest = rest[begin:]
        searched = max(0, len(rest) - 1)
        if len(rest) > LARGEST:
            raise http.client.LineTooLong("event")


def _pieces(response: http.client.HTTPResponse, sock: socket.socket, deadline: float) -> Iterator[bytes]:
    """The body, all of it before the deadline."""
    size = 0
    wanted = response.length
    while not response.isclosed():  # since 3.11.8 and 3.12.2 the last byte of a known length closes it and the socket
        sock.settimeout(max(deadline - time.monotonic(), 0.001))
        piece = response.read1(1 << 16)
        if not piece:
            break
        size += len(piece)
        if size > LARGEST:
            raise http.client.LineTooLong("answer")
        yield piece
    if wanted is not None and size < wanted:  # read1 takes the end of the connection for the end of the body
        raise http.client.IncompleteRead(b"", wanted - size)


def _quoted(name: str) -> str:
    return quote(name, safe="", errors="surrogateescape")
