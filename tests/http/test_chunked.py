"""The chunked coding: what ends a body, what is dropped, what is refused, and what it costs."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.errors import ProtocolViolation
from lbsvc.http.chunked import LAST_CHUNK, ChunkedReader, encode_chunk, encode_end
from lbsvc.http.fields import Rules

RULES = Rules(header_size=1024, header_count=5)


class ChunkedTests(TestCase):
    def read(self, *pieces: bytes, rules: Rules = RULES) -> tuple[bytes, ChunkedReader]:
        reader = ChunkedReader(rules)
        return b"".join([reader.feed(piece) for piece in pieces]), reader

    def status(self, *pieces: bytes, rules: Rules = RULES) -> int:
        return self.assertRaises(ProtocolViolation, self.read, *pieces, rules=rules).status

    def test_payload(self) -> None:
        """Chunks of any size in either case of hexadecimal are joined; the body ends behind its empty line."""
        payload, reader = self.read(b"5\r\nhello\r\n00a\r\n0123456789\r\nB\r\n0123456789a\r\n000\r\n\r\n")
        self.assertEqual((payload, reader.ended, reader.surplus), (b"hello01234567890123456789a", True, b""))

    def test_surplus(self) -> None:
        """What follows the body is handed back untouched."""
        payload, reader = self.read(b"1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\r\n")
        self.assertEqual((payload, reader.surplus), (b"a", b"GET / HTTP/1.1\r\n"))

    def test_not_ended(self) -> None:
        """A body has not ended before the last byte of its empty line."""
        stream = b"1\r\na\r\n0\r\nA: b\r\n\r\n"
        for length in range(len(stream)):
            reader = self.read(stream[:length])[1]
            self.assertFalse(reader.ended, stream[:length])
            self.assertEqual(reader.trailers, b"")

    def test_payload_is_not_held_back(self) -> None:
        """Payload is handed on as it comes, within a chunk too."""
        reader = ChunkedReader(RULES)
        self.assertEqual(
            [reader.feed(piece) for piece in (b"a\r\n01", b"234", b"56789", b"\r\n")], [b"01", b"234", b"56789", b""]
        )

    def test_trailers(self) -> None:
        """Trailers go on as complete lines, but for those that would change what the message means."""
        lines = (
            b"X-Sum: 1",
            b"content-length: 9",
            b"Transfer-Encoding: chunked",
            b"Host: b",
            b"Authorization: x",
        )
        reader = self.read(b"0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n")[1]
        self.assertEqual(reader.trailers, b"X-Sum: 1\r\n")
        for name in (
            *(b"Set-Cookie", b"Trailer", b"Connection", b"X-Forwarded-For", b"X-Request-Id", b"Content_Length", b"X_Y"),
            *(b"TE", b"Upgrade", b"Keep-Alive", b"Expect", b"Range", b"If-Match", b"if-none-match", b"Cookie", b"Date"),
            *(b"Proxy-Anything", b"Sec-Fetch-Site", b"Access-Control-Allow-Origin", b"Accept-Encoding", b"Origin"),
            *(b"Content-Encoding", b"Content-Type", b"Content-Range", b"X-Original-URL", b"Forwarded", b"Location"),
        ):
            self.assertEqual(self.read(b"0\r\n%b: x\r\n\r\n" % name)[1].trailers, b"", name)
        for name in (
            b"Grpc-Status",
            b"Content-Digest",
            b"ETag",
            b"Server-Timing",
            b"Signature",
            b"Authentication-Info",
        ):
            self.assertEqual(self.read(b"0\r\n%b:x\r\n\r\n" % name)[1].trailers, name + b": x\r\n", name)

    def test_nominated_trailers(self) -> None:
        """RFC 9110, 7.6.1: a trailer that the head's Connection names ends here as a header would."""
        head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop\r\nTransfer-Encoding: chunked"
        reader = ChunkedReader(RULES, head)
        reader.feed(b"0\r\nX-Hop: 1\r\nX-End: 2\r\nx-hop: 3\r\n\r\n")
        self.assertEqual(reader.trailers, b"X-End: 2\r\n")

    def test_underscored_trailers(self) -> None:
        """A listener that refuses underscores in header names refuses them in trailers."""
        for name in (b"X_Y", b"Content_Length"):
            for underscores, status in (("reject", 400), ("drop", None), ("keep", None)):
                rules = Rules(underscores=underscores)
                stream = b"0\r\n%b: 1\r\n\r\n" % name
                if status is None:
                    self.assertEqual(self.read(stream, rules=rules)[1].trailers, b"", underscores)
                else:
                    self.assertEqual(self.status(stream, rules=rules), status)

    def test_trailer_limits(self) -> None:
        """Trailers are bounded by the header's count and size: 431."""
        self.assertTrue(self.read(b"0\r\n" + b"A: b\r\n" * 5 + b"\r\n")[1].ended)
        self.assertEqual(self.status(b"0\r\n" + b"A: b\r\n" * 6 + b"\r\n"), 431)
        self.assertEqual(self.status(b"0\r\nA: " + b"b" * 1024), 431)
        self.assertEqual(self.status(b"0\r\nA: " + b"b" * 1024 + b"\r\n\r\n"), 431)

    def test_trailers_in_all(self) -> None:
        """Many trailers of lawful size are refused together, dropped ones too."""
        rules = Rules(header_size=1024, header_count=1000)
        for line in (b"X-A: " + b"a" * 900, b"Expires: " + b"a" * 900):
            self.assertEqual(self.status(b"0\r\n" + (line + b"\r\n") * 20, rules=rules), 431)

    def test_sizes(self) -> None:
        """A size is hexadecimal digits and nothing else, and cannot overflow."""
        for size in (
            b"",
            b"+1",
            b"-1",
            b" 1",
            b"1 ",
            b"\t1",
            b"0x1",
            b"1_0",
            b"1.",
            b"g",
            b"\xb2",
            b"\x00",
            b"f" * 16,
            b"1,1",
        ):
            self.assertEqual(self.status(size + b"\r\nx\r\n0\r\n\r\n"), 400, size)
        self.assertEqual(self.read(b"f" * 15 + b"\r\nx")[0], b"x")

    def test_hopeless_beginnings(self) -> None:
        """A line that cannot become a size line is refused before it is whole."""
        for begin in (
            b"x",
            b"-",
            b"0x",
            b"1\rx",
            b"f" * 16,
            b"1;" + b"e" * 1023,
            b"1\r\nab",
            b"1\r\na\rb",
            b"1\r\na\n",
        ):
            self.assertEqual(self.status(begin), 400, begin)
            self.assertEqual(self.status(*[begin[n : n + 1] for n in range(len(begin))]), 400, begin)

    def test_extensions(self) -> None:
        """Extensions of any lawful form are dropped; long ones and many of them are refused."""
        for extension in (b";a=b", b";a", b"; a", b';a="\t\xff"', b';a="b\\"c;d"', b';a = b\t; c=\t""', b";!#=~"):
            self.assertEqual(self.read(b"1%b\r\nx\r\n0%b\r\n\r\n" % (extension, extension))[0], b"x", extension)
        self.assertEqual(self.status(b"1;" + b"e" * 1100 + b"\r\nx\r\n"), 400)
        self.assertEqual(self.status((b"1;" + b"e" * 1000 + b"\r\nx\r\n") * 17), 400)

    def test_unlawful_extensions(self) -> None:
        """RFC 9112, 7.1.1: what is no list of names with values is refused, on the last chunk too; so is space before it."""
        for wrong in (
            *(b"\x00", b"\x7f", b"a\rb", b"a\nb", b"", b" ", b";a", b"a;", b"=", b"=b", b"a=", b"a b", b"a ", b"a=b "),
            *(
                b"a[",
                b"\xe9",
                b"a=\xe9",
                b'a="',
                b'"a"',
                b'a="b"c',
                b'a="\\"',
                b'a="\x00"',
                b"a=b=c",
                b"a==b",
                b"a='b c'",
            ),
        ):
            for size in (b"1", b"0"):
                self.assertEqual(self.status(b"%b;%b\r\nx\r\n0\r\n\r\n" % (size, wrong)), 400, wrong)
        for wrong in (b" ;a", b"\t;a", b"\r;a", b" "):
            self.assertEqual(self.status(b"1%b\r\nx\r\n0\r\n\r\n" % wrong), 400, wrong)

    def test_extensions_cost_little(self) -> None:
        """Masses of white space and quotes in an extension are refused or taken by one pass over them."""
        for extension in (
            b";a" + b" " * 1000,
            b";" + b" \t" * 500,
            b';a="' + b"\\" * 1000,
            b";a" * 500,
            b';a=""' * 200,
        ):
            for _ in range(16):
                try:
                    self.read(b"1%b\r\nx\r\n" % extension)
                except ProtocolViolation as refusal:
                    self.assertEqual(refusal.status, 400)

    def test_bare_cr_in_trailers(self) -> None:
        """Lines that somebody ends by CR alone are refused without waiting for the end of the last."""
        for begin in (b"0\r\nA: b\rC", b"0\r\n\rX", b"0\r\nA: b\r\r"):
            self.assertEqual(self.status(begin), 400, begin)
            self.assertEqual(self.status(*[begin[n : n + 1] for n in range(len(begin))]), 400, begin)

    def test_line_length_at_any_cut(self) -> None:
        """The longest size line passes and one byte more does not, whole or in pieces."""
        for length, lawful in ((1021, True), (1022, False)):
            stream = b"1;" + b"e" * length + b"\r\nx\r\n0\r\n\r\n"
            for pieces in ([stream], [stream[n : n + 1] for n in range(len(stream))], [stream[:1000], stream[1000:]]):
                if lawful:
                    self.assertTrue(self.read(*pieces)[1].ended)
                else:
                    self.assertEqual(self.status(*pieces), 400)

    def test_blame(self) -> None:
        """In an answer the same fault is the backend's: 502."""
        refusal = self.assertRaises(ProtocolViolation, self.read, b"zz\r\n", rules=Rules(request=False))
        self.assertEqual((refusal.status, refusal.blame), (502, "upstream"))

    def test_written_is_read(self) -> None:
        """What the writer writes the reader reads."""
        payload, reader = self.read(encode_chunk(b"x" * 300) + encode_chunk(b"y") + encode_end(b"A: b\r\n"))
        self.assertEqual((payload, reader.trailers, reader.ended), (b"x" * 300 + b"y", b"A: b\r\n", True))
        self.assertEqual(encode_end(b""), LAST_CHUNK)

    def test_begun_lines_are_all_that_is_kept(self) -> None:
        """Between reads nothing is kept but the beginning of one line."""
        reader = ChunkedReader(RULES)
        reader.feed((b"3\r\nabc\r\n" * 10_000) + b"3\r\nab")
        self.assertEqual(reader._begun, b"")
        reader.feed(b"c\r\n1;ext")
        self.assertEqual(reader._begun, b"1;ext")
