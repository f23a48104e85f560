"""curl as a client, in every way of speaking HTTP/1 that it has: what it gets, and what the backend got."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
from collections.abc import Callable

from tests.integration.cases import ProcessTestCase, config
from tests.kit.processes import Balancer, RawClient, free_ports, until
from tests.kit.programs import curl
from tests.kit.upstreams import (
    Answer,
    Conversation,
    Forever,
    RecordingBackend,
    Step,
    response,
)

MIB = 1024 * 1024
#: What curl says about how it went: status, connections made, bytes of body received and sent.
SUMMARY = "%{http_code} %{num_connects} %{size_download} %{size_upload}\n"
TRAILERS = b"X-Checksum: abc\r\nX-Count: 2\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\none\r\n3\r\ntwo\r\n0\r\n"


def answering(reply: Callable[[bytes, bytes], bytes]) -> RecordingBackend:
    """Keeps connections alive and answers each request by `reply(head, body)`."""
    return RecordingBackend([Forever(Answer(reply))])


def target_of(head: bytes) -> bytes:
    return head.split(b" ", 2)[1]


def names(head: bytes) -> set[bytes]:
    """The header names of a head, lower-case."""
    return {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:] if line}


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


class ClientCase(ProcessTestCase):
    """curl in a folder of its own, before one backend or listener."""

    def setUp(self) -> None:
        self.folder = self.scratch()

    def curl(self, *options: str, **keys: object) -> subprocess.CompletedProcess[bytes]:
        return curl(*options, folder=self.folder, **keys)  # type: ignore[arg-type]

    def front(self, reply: Callable[[bytes, bytes], bytes], **keys: object) -> str:
        """A balancer before one backend that answers by `reply`; the URL without a path."""
        self.upstream = self.backend(answering(reply))
        self.balancer, self.port = self.serve(self.upstream.address, **keys)  # type: ignore[arg-type]
        return f"http://127.0.0.1:{self.port}"

    def settled(self, balancer: Balancer, count: int) -> list[dict[str, object]]:
        """The access log's lines, once there are `count`."""
        until(lambda: len(balancer.access_lines()) >= count, f"{count} lines in the access log")
        return balancer.access_lines()


class VersionTests(ClientCase):
    def test_chunks_for_http10(self) -> None:
        """A client of HTTP/1.0 gets a chunked answer plain, up to the end of its connection; the backend's is kept."""
        url = self.front(lambda head, body: CHUNKED + TRAILERS + b"\r\n")
        result = self.curl("--http1.0", "-i", "-w", SUMMARY, f"{url}/1", f"{url}/2")
        self.assertEqual(result.stdout.count(b"\r\n\r\nonetwo200 1 6 0\n"), 2, result.stdout)
        head = result.stdout.lower().partition(b"\r\n\r\n")[0]
        self.assertEqual(names(head) & {b"transfer-encoding", b"trailer", b"x-checksum"}, set())
        self.assertIn(b"\r\nconnection: close", head)
        self.assertEqual(len(self.upstream.conversations), 1)
        (received,) = self.upstream.received
        self.assertEqual(received.count(b" HTTP/1.1\r\n"), 2)

    def test_keep_alive_of_http10(self) -> None:
        """A client of HTTP/1.0 that asks for it keeps its connection, and sees where each sized answer ends."""
        url = self.front(lambda head, body: response(target_of(head)))
        result = self.curl("--http1.0", "-H", "Connection: keep-alive", "-w", SUMMARY, f"{url}/a", f"{url}/b")
        self.assertEqual(result.stdout, b"/a200 1 2 0\n/b200 0 2 0\n")

    def test_post_of_http10(self) -> None:
        """A POST of HTTP/1.0 arrives whole, as one of HTTP/1.1."""
        body = os.urandom(3 * MIB)
        (self.folder / "body").write_bytes(body)
        url = self.front(lambda head, got: response(digest(got)))
        self.assertEqual(self.curl("--http1.0", "--data-binary", "@body", url).stdout, digest(body))
        self.assertTrue(self.upstream.received[0].startswith(b"POST / HTTP/1.1\r\n"))

    def test_upgrade_to_http2_is_declined(self) -> None:
        """curl --http2 asks for h2c: it is answered by HTTP/1.1, and no backend hears of the wish."""
        url = self.front(lambda head, body: response(head))
        result = self.curl("--http2", "-w", "%{http_version} " + SUMMARY, url)
        self.assertTrue(result.stdout.endswith(b"\r\n\r\n1.1 200 1 %d 0\n" % len(self.upstream.received[0])))
        asked = names(self.upstream.received[0])
        self.assertEqual(asked & {b"upgrade", b"http2-settings", b"connection"}, set())

    def test_what_is_not_http1(self) -> None:
        """A PROXY header that nobody asked for, TLS: refused, and no backend hears of them."""
        url = self.front(lambda head, body: response(b"never"))
        told = self.curl("--haproxy-protocol", "--http0.9", "-w", "%{http_code}", url).stdout
        self.assertTrue(told.startswith(b"400 bad_request ") and told.endswith(b"400"), told)
        self.curl("-k", url.replace("http:", "https:"), exit_status=35)
        lines = self.settled(self.balancer, 2)
        self.assertEqual([(line["status"], line["reason"]) for line in lines], [(400, "bad_request")] * 2)
        self.assertEqual(self.upstream.conversations, [])

    def test_as_a_forward_proxy(self) -> None:
        """curl -x sends the absolute form: the backend gets the origin form, with the target's own host."""
        url = self.front(lambda head, body: response(head))
        head = self.curl("-x", url, "http://shop.example/a?b").stdout
        self.assertTrue(head.startswith(b"GET /a?b HTTP/1.1\r\n"), head)
        self.assertIn(b"\r\nhost: shop.example\r\n", head.lower())
        self.assertNotIn(b"proxy-connection", names(head))

    def test_tunnels_are_refused(self) -> None:
        """CONNECT is no method of ours: 501, and no tunnel to anywhere."""
        url = self.front(lambda head, body: response(b"never"))
        result = self.curl("-p", "-x", url, "-w", "%{http_connect}", f"http://127.0.0.1:{self.port}/", exit_status=56)
        self.assertEqual(result.stdout, b"501")
        self.assertEqual(self.upstream.conversations, [])


class BodyTests(ClientCase):
    def test_upload_of_unknown_length(self) -> None:
        """What comes from a pipe goes in chunks, and arrives byte for byte, with nothing that frames it inside."""
        body = os.urandom(5 * MIB)
        url = self.front(lambda head, got: response(digest(got)))
        result = self.curl("-T", "-", url, stdin=body)
        self.assertEqual(result.stdout, digest(body))
        self.assertTrue(self.upstream.received[0].startswith(b"PUT / HTTP/1.1\r\n"))
        self.assertIn(b"transfer-encoding", names(self.upstream.received[0].partition(b"\r\n\r\n")[0]))

    def test_empty_bodies(self) -> None:
        """An empty chunked upload and an empty sized one are requests like others."""
        url = self.front(lambda head, got: response(b"<%b>" % got))
        self.assertEqual(self.curl("-T", "-", url, stdin=b"").stdout, b"<>")
        self.assertEqual(self.curl("-d", "", url).stdout, b"<>")

    def test_form(self) -> None:
        """A multipart form with a file in it arrives as curl built it."""
        content = os.urandom(200_000)
        (self.folder / "photo").write_bytes(content)
        url = self.front(lambda head, got: response(digest(got.partition(b"\r\n\r\n")[2][: len(content)])))
        self.assertEqual(self.curl("-F", "photo=@photo", url).stdout, digest(content))

    def test_continue_is_the_backends_word(self) -> None:
        """No 100 comes from us: a backend that refuses with 417 saves curl the body, and itself too."""

        class Refusing(Step):
            def run(self, talk: Conversation) -> None:
                talk.until(b"\r\n\r\n")
                talk.send(response(b"no", "417 Expectation Failed"))

        (self.folder / "body").write_bytes(bytes(2 * MIB))
        backend = self.backend(RecordingBackend([Refusing()]))
        _, port = self.serve(backend.address)
        asking = ["-v", "-w", SUMMARY, "-H", "Expect: 100-continue", "--expect100-timeout", "30"]
        result = self.curl(*asking, "--data-binary", "@body", f"http://127.0.0.1:{port}/")
        self.assertEqual(result.stdout, b"no417 1 2 0\n")
        self.assertNotIn(b"100 Continue", result.stderr)
        self.assertTrue(backend.received[0].endswith(b"\r\n\r\n"))

    def test_backend_that_ignores_expect(self) -> None:
        """curl loses patience and sends its body without 100: it is passed on all the same."""

        class Silent(Step):
            def run(self, talk: Conversation) -> None:
                talk.until(b"\r\n\r\n")
                talk.send(response(digest(talk.consume(MIB))))

        body = os.urandom(MIB)
        (self.folder / "body").write_bytes(body)
        backend = self.backend(RecordingBackend([Silent()]))
        _, port = self.serve(backend.address)
        asking = ["-H", "Expect: 100-continue", "--expect100-timeout", "0.2", "--data-binary", "@body"]
        self.assertEqual(self.curl(*asking, f"http://127.0.0.1:{port}/").stdout, digest(body))

    def test_too_large(self) -> None:
        """A body past the limit: 413, seen by curl in the midst of sending; with Expect it is not even begun."""
        (self.folder / "body").write_bytes(bytes(64 * MIB))
        url = self.front(lambda head, got: response(b"never"), listener={"limits": {"body_size": "1MiB"}})
        for options in (["-T", "body"], ["-T", "-"], ["-T", "body", "-H", "Expect: 100-continue"]):
            result = self.curl(*options, "-w", SUMMARY, "-H", "Accept: text/plain", url, stdin=bytes(64 * MIB))
            error, summary = result.stdout.splitlines()[0], result.stdout.splitlines()[-1]
            self.assertTrue(error.startswith(b"413 too_large "), (options, error))
            self.assertTrue(summary.startswith(b"413 1 "), (options, summary))
            if "Expect: 100-continue" in options:
                self.assertTrue(summary.endswith(b" 0"), summary)
        self.assertTrue(all(b"never" not in line for line in self.upstream.received))

    def test_answers_without_a_body(self) -> None:
        """HEAD with a length, 204, and 304 with a length: curl goes on, on the same connection, at once."""
        replies = {
            b"/head": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
            b"/chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"/none": b"HTTP/1.1 204 No Content\r\n\r\n",
            b"/same": b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 500\r\n\r\n',
            b"/reset": b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
            b"/last": response(b"last"),
        }
        url = self.front(lambda head, body: replies[target_of(head)])
        told = ["-w", SUMMARY]
        heads = [
            "-I",
            "-o",
            "/dev/null",
            *told,
            f"{url}/head",
            "--next",
            "-I",
            "-o",
            "/dev/null",
            *told,
            f"{url}/chunks",
        ]
        plain = [part for path in ("none", "same", "reset", "last") for part in ("--next", *told, f"{url}/{path}")]
        result = self.curl("-q", *heads, *plain)
        self.assertEqual(
            result.stdout, b"200 1 0 0\n200 0 0 0\n204 0 0 0\n304 0 0 0\n205 0 0 0\nlast200 0 4 0\n", result.stderr
        )
        self.assertEqual(len(self.upstream.conversations), 1)
        shown = self.curl("-I", f"{url}/head", "--next", "-i", "-s", f"{url}/same").stdout.lower()
        self.assertIn(b"content-length: 1000000\r\n", shown)
        self.assertIn(b'etag: "x"\r\n', shown)

    def test_trailers(self) -> None:
        """Fields behind a chunked body reach curl as such, and the next answer begins behind them."""
        url = self.front(lambda head, body: CHUNKED + TRAILERS + b"\r\n")
        result = self.curl("-D", "heads", "-w", SUMMARY, f"{url}/1", "--next", "-w", SUMMARY, f"{url}/2")
        self.assertEqual(result.stdout, b"onetwo200 1 6 0\nonetwo200 0 6 0\n")
        self.assertTrue((self.folder / "heads").read_bytes().endswith(b"\r\n\r\n" + TRAILERS))

    def test_trailers_of_requests(self) -> None:
        """Fields behind a chunked request reach the backend, unless they would be taken for something else."""
        self.front(lambda head, body: response(body))
        with RawClient(self.port) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n")
            client.send(TRAILERS + b"Content-Length: 5\r\nHost: evil\r\n\r\n")
            self.assertEqual(client.response().body, b"body")
        (received,) = self.upstream.received
        behind = received.rpartition(b"\r\n0\r\n")[2]
        self.assertEqual(names(b"\r\n" + behind) - {b"x-checksum", b"x-count"}, set())

    def test_early_hints(self) -> None:
        """A 103 reaches curl before the answer; a client of HTTP/1.0 never sees it."""
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
        url = self.front(lambda head, body: hints + response(b"page"))
        self.assertIn(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n", self.curl("-i", url).stdout)
        old = self.curl("--http1.0", "-i", url).stdout
        self.assertNotIn(b"103", old.partition(b"\r\n")[0])
        self.assertTrue(old.endswith(b"\r\n\r\npage"), old)

    def test_compressed(self) -> None:
        """A compressed answer is passed on as it is, and curl unpacks what the backend packed."""
        text = b"many words, " * 10_000
        url = self.front(lambda head, body: response(gzip.compress(text), "200 OK", "Content-Encoding: gzip"))
        self.assertEqual(self.curl("--compressed", url).stdout, text)

    def test_many_at_once(self) -> None:
        """200 transfers, 50 at a time, each its own answer: none is mixed up with another."""
        url = self.front(lambda head, body: response(target_of(head) * 100))
        for number in range(200):
            (self.folder / "list").open("a").write(f'url = "{url}/{number}"\noutput = "got-{number}"\n')
        self.curl("-Z", "--parallel-max", "50", "-K", "list")
        for number in range(200):
            self.assertEqual((self.folder / f"got-{number}").read_bytes(), b"/%d" % number * 100)


class TargetTests(ClientCase):
    def test_paths_as_they_are(self) -> None:
        """--path-as-is: dots, double slashes and escapes reach the backend as they were written."""
        url = self.front(lambda head, body: response(target_of(head)))
        for path in (
            "/a/../b",
            "/./c//d",
            "/%2e%2e/e",
            "/f%2Fg%20h",
            "/;p=1?q=/../x&%41",
            "//i",
            "/j/..",
            "/?",
            "/k?l?m",
        ):
            self.assertEqual(self.curl("--path-as-is", f"{url}{path}").stdout, path.encode(), path)

    def test_routes_go_by_meaning(self) -> None:
        """A path that only means /internal is denied as /internal is, however it is spelt; its look-alike is not."""
        backend = self.backend(answering(lambda head, body: response(target_of(head))))
        port, admin = free_ports(2)
        routes = [{"match": {"path": "/internal/*"}, "respond": {"status": 403, "body": "no"}}]
        text = config(
            {"main": {"bind": f"127.0.0.1:{port}", "routes": routes, "pool": "web"}},
            {"web": {"backends": [backend.address], "health_check": "off"}},
            admin=admin,
        )
        self.start(text).ready()
        url = f"http://127.0.0.1:{port}"
        for path in (
            "/internal/x",
            "/a/../internal/x",
            "/%69nternal",
            "//internal/x",
            "/./internal",
            "/v1/%2e%2e/internal/",
        ):
            told = self.curl("--path-as-is", "-w", "%{http_code}", f"{url}{path}").stdout
            self.assertIn(told[-3:], (b"403", b"400"), path)
        self.assertEqual(self.curl(f"{url}/internals").stdout, b"/internals")
        self.assertEqual(backend.received[0].split(b" ")[1], b"/internals")

    def test_options_of_the_server(self) -> None:
        """OPTIONS * goes to the backend as it is."""
        url = self.front(lambda head, body: response(target_of(head)))
        self.assertEqual(self.curl("-X", "OPTIONS", "--request-target", "*", url).stdout, b"*")

    def test_limits(self) -> None:
        """A target that is too long is 414, too many bytes or fields of header 431; curl sees each, and goes on."""
        url = self.front(lambda head, body: response(b"never"))
        self.curl("-o", "out", f"{url}/", "-w", "%{http_code}")
        (self.folder / "large").write_text("".join(f"X-{n}: {'v' * 5000}\n" for n in range(10)))
        (self.folder / "many").write_text("".join(f"X-{n}: v\n" for n in range(101)))
        cases = (([f"{url}/{'a' * 40_000}"], b"414"), (["-H", "@large", url], b"431"), (["-H", "@many", url], b"431"))
        for options, status in cases:
            told = self.curl("-w", "%{http_code}", "-o", "out", *options).stdout
            self.assertEqual(told, status)
        self.assertEqual(len(self.upstream.conversations), 1)
