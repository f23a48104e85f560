"""The access log: names and rules of the contract, lines that no client can forge, batches, samples, losses."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.core.record import AccessRecord, Record
from lbsvc.observe import logformats
from lbsvc.observe.accesslog import BATCH, LINGER, AccessLog
from lbsvc.observe.logformats import combined_lines, json_lines

TS = 1795223723.123456  # 2026-11-21T01:15:23.123Z

PROXIED = Record(
    TS, b"4f1c9a", "web", "HTTP/1.1", "192.0.2.7", "10.9.9.9", b"GET", b"www.example.com",
    b"/a?x=1&token=LEAK", 200, 412, 1893, "api", "main", "a", 2, "ok", 0.5, 0.0001239, 0.25, 0.7500009,
    b"curl/8", b"https://h/?key=LEAK",
)  # fmt: skip

TCP = Record(
    TS, b"77", "db", "tcp", "192.0.2.7", "192.0.2.7", bytes_in=10, bytes_out=20, pool="db", backend="b",
    attempts=1, reason="idle_timeout", t_connect=0.25, t_total=600.0,
)  # fmt: skip

#: The same request over TLS, as the first of its connection.
SECURE = PROXIED._replace(tls="TLSv1.3", t_handshake=0.0012349)

bytes_or_none = st.none() | st.binary(max_size=80)

#: What `"quoted \" text"` may look like in a combined line.
_FIELD = r'"(?:[^"\\\x00-\x1f\x7f-\uffff]|\\["\\]|\\x[0-9a-f]{2})*"'
COMBINED = re.compile(rf"\S+ - - \[[^\]]+\] {_FIELD} \d{{3}} \d+ {_FIELD} {_FIELD}\n")


#: COMBINEDAPACHELOG of logstash's legacy grok patterns, put in for what it names, as Python writes it.
GROK = re.compile(
    r"(?P<clientip>\S+) (?P<ident>\S+) (?P<auth>\S+) "
    r"\[(?P<timestamp>\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "
    r'"(?:(?P<verb>\w+) (?P<request>\S+)(?: HTTP/(?P<httpversion>\d+(?:\.\d+)?))?|(?P<rawrequest>.*?))" '
    r"(?P<response>\d+) (?:(?P<bytes>\d+)|-) "
    r'(?P<referrer>"(?:\\.|[^\\"])*") (?P<agent>"(?:\\.|[^\\"])*")'
)

seconds_or_none = st.none() | st.floats(0, 1e6)
tries_or_none = st.none() | st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), min_size=1).map(tuple)

#: Records of which each lacks other things.
records = st.builds(
    PROXIED._replace,
    ts=st.floats(0, 4e9),
    protocol=st.sampled_from(("HTTP/1.0", "HTTP/1.1", "tcp")),
    method=bytes_or_none,
    host=bytes_or_none,
    target=bytes_or_none,
    status=st.sampled_from((0, 200, 404)),
    pool=st.none() | st.text(max_size=8),
    backend=st.none() | st.text(max_size=8),
    t_queue=seconds_or_none,
    t_connect=seconds_or_none,
    t_first=seconds_or_none,
    t_total=seconds_or_none,
    user_agent=bytes_or_none,
    referer=bytes_or_none,
    tries=tries_or_none,
    tls=st.sampled_from((None, "TLSv1.2", "TLSv1.3")),
    t_handshake=seconds_or_none,
    grpc_status=st.none() | st.integers(0, 16),
)


def one(record: AccessRecord) -> dict[str, object]:
    line = json_lines([record])
    parsed: dict[str, object] = json.loads(line)
    return parsed


class JSONTests(TestCase):
    def test_everything(self) -> None:
        """A request that was proxied: every name, masked queries, times in seconds to the microsecond."""
        self.assertEqual(
            one(PROXIED),
            {
                "log": "access", "ts": "2026-11-21T01:15:23.123Z", "id": "4f1c9a", "listener": "web",
                "protocol": "HTTP/1.1", "client": "192.0.2.7", "peer": "10.9.9.9", "method": "GET",
                "host": "www.example.com", "path": "/a?x=1&token=***", "status": 200, "bytes_in": 412,
                "bytes_out": 1893, "route": "api", "pool": "main", "backend": "a", "attempts": 2, "reason": "ok",
                "t": {"queue": 0.5, "connect": 0.000123, "first_byte": 0.25, "total": 0.75},
                "user_agent": "curl/8", "referer": "https://h/?key=***",
            },
        )  # fmt: skip

    def test_opening(self) -> None:
        """Each line begins, byte for byte, as promised, and ends with its newline."""
        text = json_lines([PROXIED, TCP, PROXIED])
        self.assertTrue(text.endswith(b"}\n"))
        lines = text.splitlines()
        self.assertEqual(len(lines), 3)
        for line in lines:
            self.assertEqual(line[:16], b'{"log": "access"')

    def test_tcp(self) -> None:
        """A tcp connection has the keys that apply, and no others; nothing is null."""
        self.assertEqual(
            one(TCP),
            {
                "log": "access", "ts": "2026-11-21T01:15:23.123Z", "id": "77", "listener": "db", "protocol": "tcp",
                "client": "192.0.2.7", "peer": "192.0.2.7", "bytes_in": 10, "bytes_out": 20, "pool": "db",
                "backend": "b", "attempts": 1, "reason": "idle_timeout", "t": {"connect": 0.25, "total": 600.0},
            },
        )  # fmt: skip

    def test_tls(self) -> None:
        """Over TLS there is its version behind the protocol, and, first of the times, how long the handshake took."""
        line = json_lines([SECURE])
        self.assertIn(b'"protocol":"HTTP/1.1","tls":"TLSv1.3","client":', line)
        self.assertIn(b'"t":{"handshake":0.001234,"queue":0.5,', line)
        plain = json.loads(line)
        del plain["tls"], plain["t"]["handshake"]
        self.assertEqual(plain, one(PROXIED))
        later = one(SECURE._replace(t_handshake=None))
        self.assertEqual((later["tls"], later["t"]), ("TLSv1.3", one(PROXIED)["t"]))

    def test_grpc(self) -> None:
        """A call of gRPC has its status as a number, 0 included; other requests have no such key."""
        for code in (0, 14):
            line = one(PROXIED._replace(grpc_status=code))
            self.assertEqual(line.pop("grpc_status"), code)
            self.assertEqual(line, one(PROXIED))

    def test_failed_handshake(self) -> None:
        """A connection that did not get through its handshake is a line like that of a tcp connection."""
        failed = Record(TS, b"78", "web", "tcp", "192.0.2.7", "192.0.2.7", reason="handshake_failed", t_total=0.25)
        self.assertEqual(
            one(failed),
            {
                "log": "access", "ts": "2026-11-21T01:15:23.123Z", "id": "78", "listener": "web", "protocol": "tcp",
                "client": "192.0.2.7", "peer": "192.0.2.7", "bytes_in": 0, "bytes_out": 0, "attempts": 0,
                "reason": "handshake_failed", "t": {"total": 0.25},
            },
        )  # fmt: skip

    def test_no_answer(self) -> None:
        """A request that got no answer is logged as 499."""
        self.assertEqual(one(PROXIED._replace(status=0, reason="client_closed"))["status"], 499)

    def test_zeros_stay(self) -> None:
        """Zero is a value: it is not left out as absent."""
        record = one(PROXIED._replace(bytes_in=0, bytes_out=0, attempts=0, t_total=0.0))
        self.assertEqual((record["bytes_in"], record["bytes_out"], record["attempts"]), (0, 0, 0))
        self.assertEqual(record["t"], {"queue": 0.5, "connect": 0.000123, "first_byte": 0.25, "total": 0.0})

    def test_tries(self) -> None:
        """A request that took several tries names them, in order; the others have no such key."""
        record = PROXIED._replace(tries=(("a", "connect_failed"), ('b"', "503"), ("c", "ok")))
        shown = [one(each) for each in (record, PROXIED)]
        expected = [("a", "connect_failed"), ('b"', "503"), ("c", "ok")]
        self.assertEqual(shown[0].pop("tries"), [{"backend": name, "reason": why} for name, why in expected])
        self.assertEqual(shown[0], shown[1])

    @given(st.lists(records, min_size=1, max_size=8))
    def test_company(self, several: list[Record]) -> None:
        """What stands in a line does not depend on the lines that it is written with, in either format."""
        for lines in (json_lines, combined_lines):
            self.assertEqual(lines(several), b"".join([lines([record]) for record in several]))

    def test_strangers_take_little_room(self) -> None:
        """Whatever is sent, and however often: little of it is kept for the next lines, and nothing long."""
        memories = (logformats._texts, logformats._referers, logformats._shown, logformats._shown_urls)
        for number in range(3000):
            name = b"%d" % number
            for lines in (json_lines, combined_lines):
                lines([PROXIED._replace(host=name, user_agent=b"u" + name, referer=name)])
                lines([PROXIED._replace(host=name * 200, user_agent=name * 300, referer=name * 400)])
        for memory in memories:
            self.assertLessEqual(len(memory), 1024)
            self.assertLessEqual(max(len(raw or b"") for raw in memory), 512)

    def test_seconds_turn(self) -> None:
        """The second of the clock is right for each line of a batch, forwards and backwards."""
        stamps = [99.9999, 100.0, 100.9995, 101.0, 50.5, 100.0015]
        lines = json_lines([PROXIED._replace(ts=ts) for ts in stamps]).splitlines()
        self.assertEqual(
            [json.loads(line)["ts"][17:] for line in lines],
            ["39.999Z", "40.000Z", "40.999Z", "41.000Z", "50.500Z", "40.001Z"],
        )

    def test_forging(self) -> None:
        """Line ends, quotes, braces and bytes that are no text stay inside their string."""
        evil = b'x"}\n{"log": "access", "id": "forged"}\r\n\x00\x1b[2J\x9b\xff\xc3\xa9\\'
        line = json_lines([PROXIED._replace(id=evil, method=evil, host=evil, target=b"/" + evil, user_agent=evil)])
        self.assertEqual(line.count(b"\n"), 1)
        self.assertTrue(line.isascii())
        shown = 'x"}\n{"log": "access", "id": "forged"}\r\n\x00\x1b[2J\\x9b\\xff\\xc3\\xa9\\'
        parsed = json.loads(line)
        for key in ("id", "method", "host", "user_agent"):
            self.assertEqual(parsed[key], shown)

    @given(st.binary(max_size=40), bytes_or_none, bytes_or_none, bytes_or_none, bytes_or_none, bytes_or_none)
    def test_any_bytes(
        self,
        identity: bytes,
        method: bytes | None,
        host: bytes | None,
        target: bytes | None,
        agent: bytes | None,
        referer: bytes | None,
    ) -> None:
        """Whatever a client sends, a record is one line of ASCII JSON, and absent exactly what was absent."""
        record = PROXIED._replace(
            id=identity, method=method, host=host, target=target, user_agent=agent, referer=referer
        )
        line = json_lines([record])
        self.assertTrue(line.isascii())
        self.assertEqual((line.count(b"\n"), line[-1:]), (1, b"\n"))
        parsed = json.loads(line)
        for key, value in zip(
            ("method", "host", "path", "user_agent", "referer"), (method, host, target, agent, referer), strict=True
        ):
            self.assertEqual(key in parsed, value is not None)


class CombinedTests(TestCase):
    def test_everything(self) -> None:
        """A request as Apache and nginx log it, in UTC, queries masked."""
        self.assertEqual(
            combined_lines([PROXIED]),
            b'192.0.2.7 - - [21/Nov/2026:01:15:23 +0000] "GET /a?x=1&token=*** HTTP/1.1" 200 1893 '
            b'"https://h/?key=***" "curl/8"\n',
        )

    def test_readers(self) -> None:
        """What a usual reader of combined logs finds in a line is what happened."""
        line = combined_lines([PROXIED._replace(user_agent=b'a "quoted" \\ agent\xff')]).decode("ascii")
        found = GROK.fullmatch(line.removesuffix("\n"))
        assert found is not None, line
        self.assertEqual(
            found.groupdict(),
            {
                "clientip": "192.0.2.7", "ident": "-", "auth": "-", "timestamp": "21/Nov/2026:01:15:23 +0000",
                "verb": "GET", "request": "/a?x=1&token=***", "httpversion": "1.1", "rawrequest": None,
                "response": "200", "bytes": "1893", "referrer": '"https://h/?key=***"',
                "agent": r'"a \"quoted\" \\ agent\xff"',
            },
        )  # fmt: skip
        at = datetime.strptime(found["timestamp"], "%d/%b/%Y:%H:%M:%S %z")
        self.assertEqual(at, datetime.fromtimestamp(int(TS), UTC))

    def test_tcp_and_no_answer(self) -> None:
        """What is absent is a dash; a connection without a request has status 000, one without an answer 499."""
        self.assertEqual(
            combined_lines([TCP, PROXIED._replace(status=0, user_agent=None, referer=b"", target=b"/")]),
            b'192.0.2.7 - - [21/Nov/2026:01:15:23 +0000] "-" 000 20 "-" "-"\n'
            b'192.0.2.7 - - [21/Nov/2026:01:15:23 +0000] "GET / HTTP/1.1" 499 1893 "-" "-"\n',
        )

    def test_tls(self) -> None:
        """The format knows nothing of TLS: the line is the same."""
        self.assertEqual(combined_lines([SECURE]), combined_lines([PROXIED]))

    def test_forging(self) -> None:
        """A client cannot end a field or a line: quotes and control characters are escaped as Apache does."""
        evil = b'x" 200 1\n9.9.9.9 - - [01/Jan/2000] "GET /forged\r\x00\x1b\xff\\'
        line = combined_lines([PROXIED._replace(user_agent=evil, target=b"/" + evil, method=evil, referer=evil)])
        self.assertEqual(line.count(b"\n"), 1)
        self.assertRegex(line.decode("ascii"), COMBINED)
        self.assertIn(rb'"x\" 200 1\x0a9.9.9.9 - - [01/Jan/2000] \"GET /forged\x0d\x00\x1b\xff\\"' + b"\n", line)

    @given(bytes_or_none, bytes_or_none, bytes_or_none, bytes_or_none)
    def test_any_bytes(
        self, method: bytes | None, target: bytes | None, agent: bytes | None, referer: bytes | None
    ) -> None:
        """Whatever a client sends, a record is one line of the format."""
        record = PROXIED._replace(method=method, target=target, user_agent=agent, referer=referer)
        line = combined_lines([record]).decode("ascii")
        self.assertIsNotNone(COMBINED.fullmatch(line), line)
        self.assertIsNotNone(GROK.fullmatch(line.removesuffix("\n")), line)


@dataclass
class Lines:
    """A writer that keeps what it is given, until it is full."""

    batches: list[bytes] = field(default_factory=list)
    is_full: bool = False
    dropped: int = 0

    def write(self, data: bytes) -> bool:
        self.batches.append(data)
        return True

    def full(self) -> bool:
        return self.is_full

    def drop(self, lines: int) -> None:
        self.dropped += lines

    def count(self) -> int:
        return sum(batch.count(b"\n") for batch in self.batches)


class BatchTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.lines = Lines()

    def log(self, sample: float = 1.0, log_format: str = "json") -> AccessLog:
        return AccessLog(self.clock, self.lines, log_format, sample, random.Random(7))

    def test_a_line_waits_for_others_but_not_long(self) -> None:
        """The first record's line leaves LINGER seconds later, in one batch with what came meanwhile."""
        log = self.log()
        log.log(PROXIED)
        self.clock.advance(LINGER / 2)
        log.log(TCP)
        self.assertEqual(self.lines.batches, [])
        self.clock.advance(LINGER / 2)
        self.assertEqual(self.lines.batches, [json_lines([PROXIED, TCP])])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_full_batch_leaves_at_once(self) -> None:
        """BATCH records do not wait, and memory is bounded by them."""
        log = self.log()
        for _ in range(BATCH):
            log.log(PROXIED)
        self.assertEqual(self.lines.count(), BATCH)
        log.log(PROXIED)
        self.clock.advance(LINGER)
        self.assertEqual(self.lines.count(), BATCH + 1)

    def test_a_full_destination_costs_lines_not_time(self) -> None:
        """While the writer takes nothing, records are counted and forgotten, without being formatted."""
        log = self.log()
        self.lines.is_full = True
        for _ in range(BATCH + 3):
            log.log(("not even a record",))  # type: ignore[arg-type]
        self.clock.advance(LINGER)
        self.assertEqual((self.lines.batches, self.lines.dropped), ([], BATCH + 3))
        self.lines.is_full = False
        log.log(PROXIED)
        self.clock.advance(LINGER)
        self.assertEqual(self.lines.count(), 1)

    def test_sample(self) -> None:
        """A tenth is about a tenth; with the same seed it is the same tenth; nothing at all is none."""
        log = self.log(0.1)
        for _ in range(5000):
            log.log(PROXIED)
        log.close()
        self.assertTrue(400 < self.lines.count() < 600, self.lines.count())
        before = self.lines.count()
        nothing = self.log(0.0)
        for _ in range(1000):
            nothing.log(PROXIED)
        nothing.close()
        self.assertEqual(self.lines.count(), before)

    def test_sample_needs_chance(self) -> None:
        """A sample without a source of random numbers is a mistake of ours, found at the start."""
        self.assertRaises(ValueError, AccessLog, self.clock, self.lines, "json", 0.5)

    def test_combined(self) -> None:
        """The format is chosen by its name."""
        log = self.log(log_format="combined")
        log.log(PROXIED)
        log.close()
        self.assertEqual(self.lines.batches, [combined_lines([PROXIED])])

    def test_close(self) -> None:
        """Closing writes what is there and leaves no timer."""
        log = self.log()
        log.log(PROXIED)
        log.close()
        self.assertEqual(self.lines.count(), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
