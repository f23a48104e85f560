"""What those who ask the admin interface too much can do to the real process: nothing that anybody else would notice."""

from __future__ import annotations

import os
import signal
import socket
import threading

from tests.integration.cases import ProcessTestCase
from tests.kit.operating import Operator, ask
from tests.kit.processes import RawClient
from tests.kit.upstreams import RecordingBackend, named_backend

#: A configuration that takes seconds to read: there are no plugins of these names, which is looked up for each.
SLOW = "pools:\n" + "".join(f"  p{i}: {{algorithm: slowly_{i}, backends: '10.0.0.1:1'}}\n" for i in range(15_000))
HEAD = b"POST /api/v1/config/check HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n"


class LimitTests(ProcessTestCase):
    def setUp(self) -> None:
        backend: RecordingBackend = self.backend(named_backend("one"))
        self.balancer, _ = self.serve({"address": backend.address, "name": "one"})
        self.operator = Operator(self.balancer)

    def test_silent_connections(self) -> None:
        """Any number of connections that say nothing leave room for those who ask, and for who watches."""
        with RawClient(self.operator.port) as stream:
            stream.send(b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            stream.until(b"event: status")
            for number in range(600):
                silent = socket.create_connection(("127.0.0.1", self.operator.port))
                self.addCleanup(silent.close)
                if number % 3:
                    silent.sendall(b"GET /livez HTTP/1.1\r\n"[: number % 23])
            for path in ("/livez", "/readyz", "/metrics"):
                self.assertEqual(ask(self.operator.port, "GET", path).status, 200)
            stream.until(b"event: status")

    def test_stopping_while_a_configuration_is_checked(self) -> None:
        """A check that takes long does not hold up a stop."""
        text = SLOW.encode()
        with RawClient(self.operator.port) as asking:
            asking.send(HEAD % len(text) + text)
            self.assertEqual(self.operator.api("GET", "/health").status, 200)
            self.balancer.signal(signal.SIGTERM)
            self.assertEqual(self.balancer.wait(10), -signal.SIGTERM)

    def test_stopping_while_a_file_is_read(self) -> None:
        """Nor does a reload whose file does not end: here it is a pipe into which nobody writes."""
        self.balancer.file.unlink()
        os.mkfifo(self.balancer.file)
        asked = threading.Event()

        def reload() -> None:
            with RawClient(self.operator.port) as asking:
                asking.send(b"POST /api/v1/reload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
                asked.set()
                asking.rest()

        thread = threading.Thread(target=reload)
        thread.start()
        self.addCleanup(thread.join)
        self.assertTrue(asked.wait(10))
        self.assertEqual(self.operator.api("GET", "/health").status, 200)
        self.balancer.signal(signal.SIGTERM)
        self.assertEqual(self.balancer.wait(10), -signal.SIGTERM)

    def test_tags_of_another_process(self) -> None:
        """A tag that was had before a restart does not match after it, whatever has been changed."""
        path = "/pools/web/backends/one"
        before = self.operator.api("GET", path).etag
        self.assertEqual(self.operator.api("GET", path).etag, before)
        text = self.balancer.file.read_text()
        self.balancer.stop()
        again = Operator(self.start(text).ready())
        self.assertNotEqual(again.api("GET", path).etag, before)
        self.assertEqual(again.api("PATCH", path, {"weight": 2}, If_Match=before).status, 412)
