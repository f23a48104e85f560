"""HTTP/1 and HTTP/2 towards clients: the same scenarios come to the same answers, logs and requests at the backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lbsvc.config.schema import Limits, Match, Redirect, RouteSettings
from tests.http.h2_road import H2Client
from tests.http.road import DATE, Road, RoadCase

Lines = tuple[tuple[str, str], ...]


class Seen(NamedTuple):
    """What a client makes of an answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    trailers: str


class Case(NamedTuple):
    """One request and what its backend says, if it is asked at all."""

    answer: bytes = b""
    method: str = "GET"
    path: str = "/a"
    lines: Lines = ()
    body: bytes | None = None
    is_sized: bool = True


def sized(body: bytes, status: str = "200 OK", *lines: str) -> bytes:
    more = "".join(f"{line}\r\n" for line in lines).encode()
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b%b\r\n%b" % (status.encode(), len(body), DATE, more, body)


CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + DATE + b"\r\n"

CASES: dict[str, Case] = {
    "plain": Case(sized(b"ok")),
    "query": Case(sized(b"ok"), path="/a?b=c&d"),
    "fields": Case(sized(b"ok", "200 OK", "X-A: b", "Set-Cookie: a=b", "Set-Cookie: c=d"), lines=(("accept", "x/y"),)),
    "head": Case(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + DATE + b"\r\n", "HEAD"),
    "no content": Case(b"HTTP/1.1 204 No Content\r\n" + DATE + b"\r\n"),
    "not modified": Case(b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n" + DATE + b"\r\n"),
    "post": Case(sized(b"done", "201 Created"), "POST", body=b"x" * 5000),
    "empty post": Case(sized(b"done"), "POST", body=b""),
    "chunked post": Case(sized(b"done"), "POST", body=b"x" * 5000, is_sized=False),
    "chunked": Case(CHUNKS + b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"),
    "trailers": Case(CHUNKS + b"3\r\none\r\n0\r\nX-Sum: 3\r\n\r\n"),
    "error": Case(sized(b"no", "503 Service Unavailable")),
    "nonsense": Case(b"nonsense\r\n\r\n"),
    "own": Case(path="/own/x"),
    "own head": Case(path="/own/x", method="HEAD"),
    "redirected": Case(path="/old/x?y"),
    "denied": Case(path="/no"),
    "ambiguous path": Case(path="/own%2fx"),
    "unknown method": Case(method="BREW"),
    "strange host": Case(lines=(("host", "a b"),)),
    "too large": Case(method="POST", body=b"x" * 20000),
    "too large in chunks": Case(method="POST", body=b"x" * 20000, is_sized=False),
    "expectation": Case(lines=(("expect", "moon"),)),
    "strangers' words": Case(sized(b"ok"), lines=(("x-forwarded-for", "1.2.3.4"), ("x-client-cert-dn", "x"))),
    "shadows": Case(sized(b"ok"), lines=(("content_length", "5"), ("x_forwarded_for", "1.2.3.4"))),
    "last hop": Case(method="TRACE", lines=(("max-forwards", "0"),)),
}


def make_road(case: RoadCase) -> Road:
    return case.road(
        own="mine",
        listener={"limits": Limits(body_size=10000)},
        routes=(
            RouteSettings("old", Match(path="/old/*"), redirect=Redirect("/new/*", 308)),
            RouteSettings("no", Match(path="/no"), deny=403),
        ),
    )


def ask_h1(road: Road, case: Case) -> Seen:
    client = road.client()
    lines = [f"{name}: {value}" for name, value in case.lines]
    if not any(name == "host" for name, _ in case.lines):
        lines.insert(0, "host: x")
    body = case.body
    if body is not None:
        lines.append(f"content-length: {len(body)}" if case.is_sized else "transfer-encoding: chunked")
        body = body if case.is_sized else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    client.send("\r\n".join([f"{case.method} {case.path} HTTP/1.1", *lines, "", ""]).encode() + (body or b""))
    answer_it(road, case)
    found = client.answer(case.method.encode())
    headers = {name.decode(): value.decode() for name, value in found.headers.items()}
    return Seen(found.status, headers, found.body, found.trailers.decode().lower())


def ask_h2(road: Road, case: Case) -> Seen:
    client = H2Client(road)
    host = dict(case.lines).get("host", "x")
    fields = [(":method", case.method), (":scheme", "http"), (":authority", host), (":path", case.path)]
    fields += [line for line in case.lines if line[0] != "host"]
    if case.body is not None and case.is_sized:
        fields.append(("content-length", str(len(case.body))))
    said = client.request(fields, case.body is None)
    if case.body is not None:
        client.data(case.body, True)
    answer_it(road, case)
    assert said.has_ended, said
    trailers = "".join(f"{name}: {value}\r\n" for name, value in said.trailers or ())
    headers = {name: value for name, value in said.fields if name != ":status"}
    return Seen(said.status, headers, said.body, trailers)


def answer_it(road: Road, case: Case) -> None:
    if road.upstream_ends and case.answer:
        road.upstream().send(case.answer)


def sent(road: Road) -> tuple[list[str], bytes]:
    """What the backend got: its head in one form, without what is new each time, and the rest."""
    if not road.upstream_ends:
        return [], b""
    start, _, rest = road.upstream().take().partition(b"\r\n\r\n")
    line, *fields = start.decode().split("\r\n")
    kept = [field.lower() for field in fields if not field.lower().startswith(("x-request-id:", "via:"))]
    return [line, *sorted(kept)], rest


#: Here a backend has been asked by HTTP/2, whose head goes on before its body is looked at, and not by HTTP/1.
EARLY = "too large in chunks"

#: What belongs to a connection of HTTP/1, or is new each time.
_OF_ONE = frozenset({"connection", "transfer-encoding", "keep-alive", "x-request-id"})


class VersionContract(RoadCase):
    def compare(self, of: Callable[[Road, Seen], object], *but: str) -> None:
        for name, case in CASES.items():
            if name in but:
                continue
            found = []
            for ask in (ask_h1, ask_h2):
                road = make_road(self)
                found.append(of(road, ask(road, case)))
            self.assertEqual(found[0], found[1], name)

    def test_answers(self) -> None:
        """Status, fields, body and trailers are the same."""

        def seen(road: Road, answer: Seen) -> object:
            headers = {name: value for name, value in answer.headers.items() if name not in _OF_ONE}
            body = answer.body.replace(road.records[-1].id, b"(id)")
            if answer.status == 400:  # what a person reads is about the version
                body = body.partition(b"\n")[0]
                headers.pop("content-length")
            return answer.status, headers, body, answer.trailers

        self.compare(seen)

    def test_backends(self) -> None:
        """The backend gets the same head, but for Via, and the same body."""
        self.compare(lambda road, answer: sent(road), EARLY)

    def test_records(self) -> None:
        """The log says the same, but for the version, the sizes and what could not be read."""

        def record(road: Road, answer: Seen) -> object:
            (found,) = road.records
            return found.status, found.reason, found.route, found.pool, found.backend, found.attempts, found.peer

        self.compare(record, EARLY)

    def test_versions(self) -> None:
        """And the version is the one that was spoken."""
        for ask, word in ((ask_h1, "HTTP/1.1"), (ask_h2, "HTTP/2")):
            road = make_road(self)
            ask(road, CASES["plain"])
            self.assertEqual([record.protocol for record in road.records], [word])
