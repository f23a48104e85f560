"""Another process in our place: when it is refused, what it is given, and what becomes of us when it fails or serves."""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from lbsvc.admin.control import Failed, Impossible, Underway
from lbsvc.config.loader import load_text
from lbsvc.errors import Stopping
from lbsvc.listening import Listeners
from lbsvc.net.inheriting import VARIABLE, Given
from lbsvc.net.notify import Notifier
from lbsvc.reloading import Reloading
from lbsvc.supervising import Supervision
from lbsvc.upgrading import PATIENCE, Upgrading, why_not
from tests.kit.notifying import NotifySocket
from tests.net.test_inheriting import Turning
from tests.observe.sample_view import SampleView

TEXT = """
listeners: {main: {bind: "127.0.0.1:8080", pool: web}}
pools: {web: {backends: ["10.0.0.1:80"], health_check: {timeout: 5s}}}
"""


class Child(Turning):
    """A reactor that starts one process at a time, which does what a test says."""

    pid = 4712
    fault: OSError | None = None

    def __init__(self) -> None:
        super().__init__()
        self.started: list[tuple[str, list[str], dict[str, str]]] = []
        self.killed: list[str] = []
        self.is_gone = False

    def spawnProcess(
        self,
        protocol: Any,
        program: str,
        arguments: list[str],
        env: dict[str, str],
        childFDs: dict[int, int],  # noqa: N803
    ) -> Child:
        if self.fault is not None:
            raise self.fault
        self.protocol = protocol
        self.started.append((program, arguments, env))
        self.channel = socket.socket(fileno=os.dup(childFDs[3]))
        with open(os.dup(childFDs[4]), "rb") as file:
            self.story = json.loads(file.read())
        return self

    def signalProcess(self, name: str) -> None:
        if self.is_gone:
            raise ProcessExitedAlready
        self.killed.append(name)

    def say(self, **told: Any) -> None:
        """The new process says something, and it is read."""
        text = json.dumps(told).encode()
        self.channel.sendall(len(text).to_bytes(4, "big") + b"\0" + text)
        self.protocol._channel.doRead()

    def end(self, reason: Exception) -> None:
        self.is_gone = True
        self.channel.close()
        self.protocol.processEnded(Failure(reason))


class Bound:
    """A bind that can be given away."""

    class bind:  # noqa: N801
        passed_as = None

    def __init__(self, service: Service) -> None:
        self._service = service
        self.given = Given("127.0.0.1:8080", (service.socket.fileno(),))

    def hand_over(self) -> None:
        self._service.told.append("listener closed")


class Service:
    """The parts of a service that an upgrade is about; `told` is what becomes of them."""

    is_stopping = False
    unready: str | None = None

    def __init__(self, clock: Child, manager: NotifySocket) -> None:
        self.told: list[str] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.supervision = Supervision(clock, Notifier(manager.env, 1), SampleView())
        self.reloading = Reloading(load_text(TEXT, "lb.yaml", {}), "lb.yaml", None, lambda: (), self.emit)
        self.settings = self.reloading.settings
        self.admin: Any = self
        self.bound = [Bound(self)]
        self.events: list[tuple[str, str]] = []

    @property
    def listening(self) -> Listeners:
        found: Any = self
        return found  # type: ignore[no-any-return]

    @property
    def listeners(self) -> list[Any]:
        return [self]

    def given(self, settings: object) -> Given:
        return Given("127.0.0.1:9901", (self.socket.fileno(),))

    def hand_over(self) -> None:
        self.told.append("admin closed")

    def emit(self, level: str, event: str, message: str, **fields: Any) -> None:
        self.events.append((level, message))

    def succeeded(self) -> None:
        self.told.append("succeeded")


class UpgradingTests(TestCase):
    def setUp(self) -> None:
        self.manager = NotifySocket()
        self.addCleanup(self.manager.close)
        self.child = Child()
        self.service = Service(self.child, self.manager)
        self.addCleanup(self.service.socket.close)
        self.addCleanup(lambda: self.child.started and self.child.channel.close())
        env = {"PATH": "/bin", "NOTIFY_SOCKET": "/run/x"}
        command = ("/bin/python", ["/bin/python", "-m", "twisted"])
        self.upgrading = Upgrading(self.child, env, self.service, {}, self.service.emit, command)

    def start(self) -> Deferred[int]:
        begun = self.upgrading.start()
        self.assertNoResult(begun)
        return begun

    def failed(self, begun: Deferred[int], kind: type[Exception]) -> str:
        """Nothing has changed: what can be changed can be, the log says why, and so does the answer."""
        words = str(self.failureResultOf(begun, kind).value)
        self.assertIsNone(self.service.reloading.closed)
        self.assertEqual(self.service.told, [])
        self.assertEqual(self.manager.states(), [])
        self.assertEqual(self.service.events[-1][0], "error")
        self.assertIn(words, self.service.events[-1][1])
        self.assertEqual(self.child.getDelayedCalls(), [])
        return words

    def test_serves(self) -> None:
        """It is started with our sockets and changes; when it is ready MAINPID is told, then our sockets close, then it
        goes, and a turn later we end; meanwhile nothing changes here."""
        begun = self.start()
        ((program, arguments, env),) = self.child.started
        self.assertEqual((program, arguments), ("/bin/python", ["/bin/python", "-m", "twisted"]))
        self.assertEqual({*env}, {"PATH", "NOTIFY_SOCKET", VARIABLE})
        self.assertEqual([each["bind"] for each in self.child.story["sockets"]], ["127.0.0.1:8080", "127.0.0.1:9901"])
        self.assertEqual(self.child.story["changes"], self.service.reloading.hand_over())
        self.assertRaises(Stopping, self.service.reloading.look_whether_open)
        self.child.say(ready=[0, 1])
        self.assertEqual(self.successResultOf(begun), 4712)
        self.assertEqual(self.manager.states(), ["MAINPID=4712"])
        self.assertEqual(self.service.told, ["listener closed", "admin closed"])
        self.assertIn(b"go", self.child.channel.recv(100))
        self.child.advance(0)
        self.assertEqual(self.service.told[2:], ["succeeded"])
        self.assertIsNotNone(self.service.reloading.closed)
        self.failureResultOf(self.upgrading.start(), Stopping)
        self.assertEqual(self.child.getDelayedCalls(), [])

    def test_what_it_does_not_want(self) -> None:
        """Binds that the new process does not want are ours to close as in any drain."""
        self.start()
        self.child.say(ready=[1])
        self.assertEqual(self.service.told, ["admin closed"])

    def test_fails(self) -> None:
        """It ends with a mistake in the configuration: its code and its words are told, and another may be tried."""
        begun = self.start()
        self.child.channel.sendall((len(b'{"failed": "lb.yaml:1:1: wrong"}')).to_bytes(4, "big") + b"\0")
        self.child.channel.sendall(b'{"failed": "lb.yaml:1:1: wrong"}')
        self.child.end(ProcessTerminated(78))
        self.assertEqual(self.failed(begun, Failed), "process 4712 ended with exit code 78: lb.yaml:1:1: wrong")
        self.child.is_gone = False
        self.start()

    def test_ends_without_a_word(self) -> None:
        """A crash is told with where its words are; an end without one, and by a signal, too."""
        for reason, words in (
            (ProcessTerminated(1), "with exit code 1: whatever it had to say stands on the standard error"),
            (ProcessDone(0), "with exit code 0: "),
            (ProcessTerminated(None, 9), "by signal 9: "),
        ):
            begun = self.start()
            self.child.end(reason)
            self.assertIn(f"process 4712 ended {words}", self.failed(begun, Failed))
            self.child.is_gone = False

    def test_too_slow(self) -> None:
        """One that is not ready in time, with what its checks may take, is killed; what it says later is not heard."""
        begun = self.start()
        self.child.advance(PATIENCE + 4.9)
        self.assertEqual(self.child.killed, [])
        self.child.advance(0.2)
        self.assertEqual(self.child.killed, ["KILL"])
        self.assertEqual(self.failed(begun, Failed), "process 4712 was not ready within 65 s, and was killed")
        self.child.end(ProcessTerminated(None, 9))
        self.assertEqual(len(self.service.events), 2)

    def test_stop_meanwhile(self) -> None:
        """Told to stop, we stop: the new process is killed, and the log says so."""
        begun = self.start()
        self.service.is_stopping = True
        self.upgrading.stop()
        self.assertEqual(self.child.killed, ["KILL"])
        self.failureResultOf(begun, Stopping)
        self.failureResultOf(self.upgrading.start(), Stopping)
        self.assertEqual(
            [words for _, words in self.service.events[1:]],
            [
                "upgrade: the service is stopping: process 4712, which had not taken over, was killed",
                "upgrade: refused: the service is stopping",
            ],
        )
        self.assertEqual(len(self.child.started), 1)

    def test_one_at_a_time(self) -> None:
        """A second one is refused while there is one, and so is one before we are ready."""
        self.service.unready = "starting"
        self.assertEqual(self.failed(self.upgrading.start(), Underway), "the service is not ready yet")
        self.service.unready = None
        self.start()
        refused = self.upgrading.start()
        self.assertIn("process 4712 is starting", str(self.failureResultOf(refused, Underway).value))
        self.assertEqual(len(self.child.started), 1)

    def test_cannot_be_started(self) -> None:
        """A program that cannot be started is told, and changes nothing."""
        self.child.fault = FileNotFoundError(2, "No such file or directory")
        words = self.failed(self.upgrading.start(), Failed)
        self.assertEqual(words, "the new process cannot be started: No such file or directory")

    def test_dies_having_taken_over(self) -> None:
        """Whoever has our place and ends while we drain is told of."""
        self.start()
        self.child.say(ready=[0, 1])
        self.child.end(ProcessTerminated(1))
        self.assertIn("having taken over", self.service.events[-1][1])

    def test_is_told_to_end_having_taken_over(self) -> None:
        """Whoever has our place and is stopped while we drain is no error."""
        self.start()
        self.child.say(ready=[0, 1])
        self.child.end(ProcessTerminated(None, signal.SIGTERM))
        self.assertIn("was told to end", self.service.events[-1][1])

    def test_dies_before_the_manager_knows(self) -> None:
        """It ends while MAINPID waits for room: we go on."""
        sent: list[tuple[str, ...]] = []
        notifier: Any = self.service.supervision._notifier
        self.patch(notifier, "send", lambda *lines: sent.append(lines))  # None: no room
        begun = self.start()
        self.child.say(ready=[0, 1])
        self.child.end(ProcessTerminated(1))
        self.failureResultOf(begun, Failed)
        self.patch(notifier, "send", lambda *lines: True)
        self.child.advance(1)
        self.assertEqual((self.service.told, self.service.reloading.closed), ([], None))
        self.assertEqual(sent, [("MAINPID=4712",)])

    def test_by_signal(self) -> None:
        """A refusal that nobody waits for is in the log, and nowhere else."""
        self.service.unready = "starting"
        self.upgrading.obey()
        self.assertEqual(self.service.events, [("error", "upgrade: refused: the service is not ready yet")])


class WhereTests(TestCase):
    def why(self, pid: int = 50, parent: int = 1, name: str = "", **env: str) -> str:
        return why_not(env, pid, parent, name) or ""

    def test_first_process(self) -> None:
        """The first process of a container is refused, whatever else is so."""
        self.assertIn("as process 1", self.why(1, 0, NOTIFY_SOCKET="/run/x"))

    def test_systemd(self) -> None:
        """As a unit's main process only where systemd listens to us; in a user's session it does not matter."""
        self.assertIn("Type=notify", self.why(SYSTEMD_EXEC_PID="50"))
        self.assertIn("Type=notify", self.why(INVOCATION_ID="x"))
        self.assertEqual(self.why(SYSTEMD_EXEC_PID="50", INVOCATION_ID="x", NOTIFY_SOCKET="/run/x"), "")
        self.assertEqual(self.why(50, 49, "bash", SYSTEMD_EXEC_PID="7", INVOCATION_ID="x"), "")

    def test_supervisors(self) -> None:
        """Whoever ends, or starts anew, when its child ends is known by name."""
        self.assertIn("tini, which has started", self.why(7, 1, "tini"))
        self.assertEqual(self.why(7, 5, "bash"), "")

    def test_start_refused(self) -> None:
        """The refusal is Impossible, and nothing is started."""
        child = Child()
        manager = NotifySocket()
        self.addCleanup(manager.close)
        service = Service(child, manager)
        self.addCleanup(service.socket.close)
        env = {"SYSTEMD_EXEC_PID": str(os.getpid())}
        refused = Upgrading(child, env, service, {}, service.emit).start()
        self.assertIn("Type=notify", str(self.failureResultOf(refused, Impossible).value))
        self.assertEqual(child.started, [])
