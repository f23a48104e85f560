"""A crew whose workers are actors: they hear what they are told, and say what the test has them say. No process, no socket.

Promises: the crew is the real one, on a clock; an actor answers nothing by itself. `told` of an actor is all that it was
told, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar, cast

from twisted.internet.task import Clock

from lbsvc.config.schema import Settings
from lbsvc.errors import Mistake
from lbsvc.workers import crew as crew_module
from lbsvc.workers import messages
from lbsvc.workers.crew import Crew
from lbsvc.workers.member import STARTING
from lbsvc.workers.reports import Report
from tests.kit import builders

M = TypeVar("M", bound=messages.Message)


def empty_report() -> Report:
    return Report([], [], [], [], [], [0.0], False, {})


class Actor:
    """Stands for workers/member.py's Member."""

    def __init__(
        self,
        reactor: Any,
        number: int,
        place: int,
        heard: Callable[[Any, Any], None],
        gone: Callable[[Any, str], None],
        env: Any,
    ) -> None:
        self.number, self.place, self.state = number, place, STARTING
        self.pid = 1000 + number
        self.born = reactor.seconds()
        self.served_since: float | None = None
        self.unanswered = 0
        self.told: list[messages.Message] = []
        self.given: list[tuple[str, list[Any]]] = []
        self.is_killed = False
        self.is_gone = False
        self._heard, self._gone = heard, gone

    # -- as the crew sees it

    def say(self, message: messages.Message, descriptors: Sequence[int] = ()) -> None:
        self.told.append(messages.read_order(messages.encode(message)))

    def give(self, binds: Iterable[tuple[str, list[Any]]]) -> None:
        self.given += binds

    def kill(self) -> None:
        self.is_killed = True

    # -- as the test has it act

    def answer(self, message: messages.Message) -> None:
        """Say something."""
        self._heard(self, messages.read_answer(messages.encode(message)))

    def serve(self) -> None:
        """It has begun, and may be told to accept."""
        self.answer(messages.Ready())

    def report(self) -> None:
        """Answer the last question."""
        self.answer(messages.Reported(self.last(messages.Ask).number, empty_report()))

    def prepared(self, *mistakes: str) -> None:
        """Answer the last change."""
        found = [Mistake("", 0, 0, "key", words) for words in mistakes]
        self.answer(messages.Prepared(self.last(messages.Prepare).number, messages.pack_mistakes(found)))

    def committed(self) -> None:
        """The same, of the second step."""
        self.answer(messages.Committed(self.last(messages.Commit).number))

    def die(self, how: str = "it was ended by signal 9") -> None:
        """The process has ended."""
        self.is_gone = True
        self._gone(self, how)

    def all(self, kind: type[M]) -> list[M]:
        """What of this kind it was told."""
        return [message for message in self.told if isinstance(message, kind)]

    def last(self, kind: type[M]) -> M:
        return self.all(kind)[-1]

    def __repr__(self) -> str:
        return f"<actor {self.number} at {self.place}, {self.state}>"


class Books:
    """Stands for the ledger."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def take(self, worker: int, report: Report) -> None:
        self.calls.append(("take", worker))

    def forget(self, worker: int) -> None:
        self.calls.append(("forget", worker))

    def renew(self) -> None:
        self.calls.append(("renew",))


def settings_of(workers: int, **keys: Any) -> Settings:
    """One listener, one pool."""
    return builders.settings(builders.listener(pool="web"), builders.pool("127.0.0.1:1"), workers=workers, **keys)


class Patching(Protocol):
    """A test case."""

    def patch(self, obj: Any, attribute: str, value: Any, /) -> object: ...


class Play:
    """A crew and its actors."""

    def __init__(self, case: Patching, workers: int = 2, **keys: Any) -> None:
        case.patch(crew_module, "Member", self._cast)
        self.clock = Clock()
        self.is_full = False
        self.everyone: list[Actor] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.books = Books()
        self.listeners: list[Any] = []
        self.verdicts: list[messages.Verdict] = []
        self.names: dict[str, list[str]] = {}
        self.settings = settings_of(workers, **keys)
        traffic = SimpleNamespace(listening=SimpleNamespace(listeners=self.listeners))
        self.crew = Crew(
            self.clock,
            self.settings,
            cast(Any, traffic),
            cast(Any, self.books),
            self.emit,
            {},
            lambda: self.verdicts,
            lambda: self.names,
        )

    def _cast(self, *arguments: Any) -> Actor:
        if self.is_full:
            raise OSError(11, "no more processes")
        actor = Actor(*arguments)
        self.everyone.append(actor)
        return actor

    def emit(self, level: str, event: str, message: str, **fields: Any) -> None:
        self.events.append((event, {"level": level, "message": message, **fields}))

    def begin(self) -> list[Actor]:
        """Start, and have all of them serve."""
        self.crew.start()
        for actor in self.there:
            actor.serve()
        return self.there

    @property
    def there(self) -> list[Actor]:
        """Those that live."""
        return [actor for actor in self.everyone if not actor.is_gone]

    def beat(self, seconds: int = 1, silent: Iterable[Actor] = ()) -> None:
        """So many seconds, in which all that are asked answer, but for some."""
        for _ in range(seconds):
            self.clock.advance(1.0)
            for actor in self.there:
                if actor not in silent and actor.all(messages.Ask):
                    actor.report()

    def told_of(self, event: str) -> list[dict[str, Any]]:
        """The events of this name."""
        return [fields for name, fields in self.events if name == event]
