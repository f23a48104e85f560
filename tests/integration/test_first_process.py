"""As PID 1 of a container: signals, the exit status, and no children left.

Where neither root nor anybody may make namespaces of process numbers the service is run as one that orphans are given to:
all of this is shown then but for the exit status, which is 0 for PID 1 alone. tests/kit/launching.py chooses.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from tests.integration.cases import ProcessTestCase, config
from tests.kit.launching import Launched, children, first_process
from tests.kit.processes import RawClient, answers, free_ports, get, until
from tests.kit.upstreams import RecordingBackend, Request, Send, WaitFor, named_backend, response

#: Becomes the command (from the second argument on), with three orphans and a child of its own, which end when somebody
#: opens the pipe that is the first argument.
FAMILY = """
import os, sys
def wait():
    open(sys.argv[1]).close()
    os._exit(3)
for _ in range(3):
    if (child := os.fork()) == 0:
        if os.fork() == 0:
            wait()
        os._exit(0)
    os.waitpid(child, 0)
if os.fork() == 0:
    wait()
os.execvp(sys.argv[2], sys.argv[2:])
"""


class FirstProcessTests(ProcessTestCase):
    def launch(self, backend: str, *family: str) -> tuple[Launched, int, int]:
        """Our service as the first process, ready; its pid (seen from here) and its port."""
        self.prefix, self.is_first = first_process()
        port, admin = free_ports(2)
        front = {"main": {"bind": f"127.0.0.1:{port}", "pool": "web"}}
        pools = {"web": {"backends": [backend], "health_check": "off"}}
        balancer = Launched(config(front, pools, admin=admin), [*self.prefix, *family])
        self.addCleanup(balancer.stop)
        balancer.ready()
        return balancer, balancer.child() if self.is_first else balancer.pid, port

    def test_signals(self) -> None:
        """HUP and USR1 leave it serving; TERM drains, what is in flight is answered, and it ends with 0 (SD-1)."""
        gate = threading.Event()
        self.addCleanup(gate.set)
        backend = self.backend(RecordingBackend([Request(), WaitFor(gate), Send(response(b"done"))]))
        balancer, pid, port = self.launch(backend.address)
        os.kill(pid, signal.SIGHUP)
        os.kill(pid, signal.SIGUSR1)
        with RawClient(port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            backend.wait_for(1)
            os.kill(pid, signal.SIGTERM)
            until(lambda: not answers(port), "refusing new connections")
            self.assertEqual(balancer.admin("/readyz")[0], 503)
            gate.set()
            self.assertEqual(client.response().body, b"done")
        self.assertEqual(balancer.wait(), 0 if self.is_first else -signal.SIGTERM)
        self.assertNotIn("Traceback", balancer.text + balancer.errors)
        self.assertEqual(balancer.events()[-1]["event"], "service.stopped")

    def test_interrupt(self) -> None:
        """INT (Ctrl-C of `docker run`) ends it with 0 too."""
        balancer, pid, _ = self.launch("127.0.0.1:1")
        os.kill(pid, signal.SIGINT)
        self.assertEqual(balancer.wait(), 0 if self.is_first else -signal.SIGINT)

    def test_second_signal(self) -> None:
        """A second TERM does not wait for what is in flight."""
        gate = threading.Event()
        self.addCleanup(gate.set)
        backend = self.backend(RecordingBackend([Request(), WaitFor(gate)]))
        balancer, pid, port = self.launch(backend.address)
        with RawClient(port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            backend.wait_for(1)
            os.kill(pid, signal.SIGTERM)
            until(lambda: not answers(port), "refusing new connections")
            os.kill(pid, signal.SIGTERM)
            self.assertEqual(balancer.wait(), 0 if self.is_first else -signal.SIGTERM)

    def test_no_children_left(self) -> None:
        """Children that others have left to it are reaped as they end, and it serves on."""
        pipe = self.scratch() / "pipe"
        os.mkfifo(pipe)
        backend = self.backend(named_backend("here"))
        balancer, pid, port = self.launch(backend.address, sys.executable, "-c", FAMILY, str(pipe))
        self.assertEqual(len(children(pid)), 4)
        with open(pipe, "w"):
            until(lambda: not children(pid), "reaped them all")
        self.assertEqual(get(port).body, b"here")
        os.kill(pid, signal.SIGTERM)
        self.assertEqual(balancer.wait(), 0 if self.is_first else -signal.SIGTERM)
