"""Which configuration is in force, and how another one comes into force (contract.md, "Reload").

Promises: what is in force is the file's settings with the changes that people made at run time laid over them
(config/overlay.py). Another one is checked as a whole, prepared (everything that can be refused), and only then committed,
by difference: whatever fails on the way leaves everything as it was, and is told to whoever asked, to the log and as a
metric. One at a time: a reload that is asked for while another reads its file waits for it. A run-time change stands in the
state file before it is answered, or is refused, and told of. Another state file takes over what is in force; one that holds
changes of its own is refused, and never overwritten. Files are read in a thread: traffic goes on meanwhile.

Called by app.py (start, SIGHUP, watch), controlling.py (admin calls) and upgrading.py. The parts that obey are given, and so
are `followers`, processes that have parts of their own (workers/crew.py): they prepare when we have, and commit when we
have; what one of them refuses is refused by all.

Decision (2026-11-21): the start, reloads and admin calls take one road, on which two trees of frozen values are compared,
instead of a way of its own for each call: what is in force can always be said, tested against a model, and kept in a file.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeAlias

from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks

from lbsvc.config import overlay
from lbsvc.config.loader import Loaded
from lbsvc.config.overlay import Overrides
from lbsvc.config.schema import Settings
from lbsvc.config.statefile import StateFile
from lbsvc.errors import ConfigErrors, Mistake, Stopping, SystemRefusal

#: So many mistakes, or changes, stand in one event; whoever asked is told of all.
MOST_TOLD: Final = 20
#: How an admin call changes what people have set: from what is in force and what was set to what is set then.
Change = Callable[[Settings, Overrides], Overrides]
#: (pool, backend) -> how long what a removed backend has may go on, in seconds; None: no limit
Drains: TypeAlias = Mapping[tuple[str, str], float | None]
_NO_DRAINS: Final[Drains] = MappingProxyType({})


class Plan(Protocol):
    """A change that can be made; nothing can be seen of it yet."""

    def commit(self) -> list[str]:
        """Make it, and say in words what it was. Must not fail."""

    def abandon(self) -> None:
        """Leave everything as it was."""


class Part(Protocol):
    """A part of the service that obeys the settings."""

    def prepare(self, old: Settings, new: Settings) -> Plan:
        """Raises SystemRefusal, with every mistake of this part."""


class Followers(Protocol):
    """Other processes that live by the same settings."""

    def prepare(self, settings: Settings, plans: Sequence[Plan]) -> Deferred[None]:
        """Have all of them prepare what `plans` has prepared here; fails with SystemRefusal, and then none has."""

    def commit(self, settings: Settings, drains: Drains) -> Deferred[None]:
        """Have them do so, now that we have; fires when they have, or are known to be gone."""

    def abandon(self) -> None:
        """It is not going to happen."""


@dataclass(frozen=True)
class Applied:
    """What has come into force: `generation` counts the files that were applied, `changes` says what they changed."""

    generation: int
    changes: tuple[str, ...]


class Reloading:
    """The configuration of the process, as it changes."""

    def __init__(
        self,
        loaded: Loaded,
        source: str,
        load: Callable[[], Deferred[Loaded]] | None,
        parts: Callable[[], Sequence[Part]],
        emit: Callable[..., None],
        tell_state: Callable[[str], None] = lambda state: None,
    ) -> None:
        self._source = source
        self._load = load
        self._parts = parts
        self._emit = emit
        #: told "reloading" before a reload and "ready" after it, whatever came of it
        self._tell_state = tell_state
        self._lock = DeferredLock()
        #: held from the first `prepare` to the last `commit`, which with followers take more than one turn
        self._turn = DeferredLock()
        self.followers: Followers | None = None
        #: told of the removals of the next commit, as far as they have limits of their own
        self.on_drains: Callable[[Drains], None] = lambda drains: None
        self._places = loaded.places
        self._file = loaded.settings
        self._overrides = Overrides()
        self._is_unkept = False  # they were handed to us, and the state file is not the one that they are in
        self.settings = loaded.settings
        self.generation = 1
        self.results = {"success": 0, "failure": 0}
        self.last_ok = True
        #: pool -> how often something about it has changed; what changes is known by it (ETag)
        self.revisions: dict[str, int] = dict.fromkeys(loaded.settings.pools, 1)
        #: told when other settings have come into force, whoever asked for them
        self.on_change: Callable[[], None] = lambda: None
        #: why nothing is changed any more; None while changes are
        self.closed: str | None = None

    def restore(self, handed: Any = None) -> None:
        """What people changed before the last stop is in force again from the start, or what the process had whose place
        this one takes (`handed`, of its `hand_over`). A damaged file stops nothing; raises SystemRefusal where changes could
        not be kept."""
        path = self._file.state_file
        if path is None and handed is None:
            return
        overrides, file = Overrides(), StateFile(path) if path is not None else None
        try:
            if file is not None:
                file.prepare()
            if handed is not None:
                overrides = overlay.from_json(handed["changes"])
                self._is_unkept = path is not None and os.path.realpath(path) != handed["state_file"]
                if file is not None and self._is_unkept:
                    _look_into(file, overrides)
            elif file is not None:
                overrides, complaint = file.load()
                if complaint is not None:
                    self._emit("warn", "state.damaged", complaint, path=path)
        except OSError as error:
            raise _unwritable(error) from None
        except (ValueError, TypeError, KeyError) as error:
            words = f"the run-time changes of the running process cannot be taken over: {error}"
            raise SystemRefusal([Mistake(self._source, 0, 0, "", words)]) from None
        self.settings, self._overrides = overlay.apply(self._file, overrides)
        self.revisions = dict.fromkeys(self.settings.pools, 1)

    def hand_over(self) -> dict[str, Any]:
        """What people have set, for another process to `restore`, as JSON has it."""
        path = self._file.state_file
        kept = os.path.realpath(path) if path is not None else None
        return {"state_file": kept, "changes": overlay.to_json(self._overrides)}

    def take_over(self) -> None:
        """What was handed to us is ours from now on, to keep and to change."""
        self.closed = None
        path = self._file.state_file
        if path is not None and self._is_unkept:
            self._is_unkept = False
            try:
                StateFile(path).save(self._overrides)
            except OSError as error:
                self._emit("error", "state.refused", f"{path}: cannot be written: {error.strerror or error}", path=path)

    def locate(self, mistakes: Sequence[Mistake]) -> list[Mistake]:
        """What the system refuses, with the places of the keys that ask for it."""
        return [self._located(mistake, self._places) for mistake in mistakes]

    def _located(self, mistake: Mistake, places: Mapping[str, tuple[int, int]]) -> Mistake:
        if mistake.line:
            return mistake
        line, column = places.get(mistake.key, (0, 0))
        return Mistake(self._source, line, column, mistake.key, mistake.message)

    # -- another file

    @inlineCallbacks
    def reload(self, who: str) -> Generator[Deferred[Any], Any, Applied]:
        """Read the file again, and have it come into force. Fails with ConfigErrors or SystemRefusal; they are told."""
        yield self._lock.acquire()
        self._tell_state("reloading")
        try:
            loaded = yield self._read()
            applied: Applied = yield self._take(loaded)
            self.results["success"] += 1
            self.last_ok = True
        except (ConfigErrors, SystemRefusal) as refusal:
            self._refused(who, [str(mistake) for mistake in refusal.mistakes])
            raise
        except Exception as error:
            self._refused(who, [f"{type(error).__name__}: {error}"])
            raise
        finally:
            self._tell_state("ready")
            self._lock.release()
        said = "; ".join(applied.changes[:MOST_TOLD]) or "nothing has changed"
        self._emit(
            "info", "config.reloaded", f"reload ({who}): generation {applied.generation}: {said}",
            by=who, generation=applied.generation, changes=list(applied.changes[:MOST_TOLD]),
        )  # fmt: skip
        for note in loaded.notes:
            self._emit("info", "config.note", note)
        return applied

    def _refused(self, who: str, errors: list[str]) -> None:
        self.results["failure"] += 1
        self.last_ok = False
        said = "; ".join(errors[:MOST_TOLD])
        self._emit(
            "error", "config.refused", f"reload ({who}): the configuration in force stays: {said}",
            by=who, generation=self.generation, errors=errors[:MOST_TOLD], more=max(0, len(errors) - MOST_TOLD),
        )  # fmt: skip

    def _read(self) -> Deferred[Loaded]:
        self.look_whether_open()
        if self._load is None:
            raise SystemRefusal(
                [Mistake(self._source, 0, 0, "", "started without a file: there is nothing to read again")]
            )
        return self._load()

    @inlineCallbacks
    def _take(self, loaded: Loaded) -> Generator[Deferred[Any], Any, Applied]:
        """Have a file that was read come into force, or nothing of it."""
        yield self._turn.acquire()
        try:
            self.look_whether_open()  # it may have begun to stop while the file was read
            settings, overrides = overlay.apply(loaded.settings, self._overrides)
            keep = partial(self._keep, loaded.settings.state_file, overrides)
            changes = yield from self._bring(settings, overrides, loaded.places, keep, _NO_DRAINS)
            self._file, self._places = loaded.settings, loaded.places
            self.generation += 1
            return Applied(self.generation, tuple(changes))
        finally:
            self._turn.release()

    # -- what people change at run time

    @inlineCallbacks
    def change(self, change: Change, drains: Drains = _NO_DRAINS) -> Generator[Deferred[Any], Any, Applied]:
        """Have a run-time change come into force. Fails with what `change` raises, or SystemRefusal: nothing has changed.
        `drains` are for those that it removes. Without followers it is done when this returns."""
        yield self._turn.acquire()
        try:
            self.look_whether_open()
            wanted = change(self.settings, self._overrides)
            settings, overrides = overlay.apply(self._file, wanted)

            def keep() -> None:
                try:
                    self._keep(self._file.state_file, overrides)
                except SystemRefusal as refusal:
                    said, path = "; ".join(map(str, self.locate(refusal.mistakes))), self._file.state_file
                    self._emit("error", "state.refused", f"a run-time change was refused: {said}", path=path)
                    raise

            changes = yield from self._bring(settings, overrides, self._places, keep, drains)
            return Applied(self.generation, tuple(changes))
        finally:
            self._turn.release()

    def _bring(
        self,
        settings: Settings,
        overrides: Overrides,
        places: Mapping[str, tuple[int, int]],
        keep: Callable[[], None],
        drains: Drains,
    ) -> Generator[Deferred[Any], Any, list[str]]:
        """Bring everybody to other settings, or nobody; what has changed, in words. `keep` writes them down."""
        plans = self._prepare(settings, places)
        try:
            try:
                if self.followers is not None:
                    yield self.followers.prepare(settings, plans)
                    self.look_whether_open()
                keep()
            except SystemRefusal as refusal:
                mistakes = [self._located(each, places) for each in refusal.mistakes]
                raise (refusal if isinstance(refusal, Stopping) else SystemRefusal(mistakes)) from None
        except BaseException:
            self._abandon(plans)
            if self.followers is not None:
                self.followers.abandon()
            raise
        changes = self._commit(plans, settings, overrides, drains)
        if self.followers is not None:
            yield self.followers.commit(settings, drains)
        return changes

    def _keep(self, path: str | None, overrides: Overrides) -> None:
        """Write down what people have set, where there is a file for it and something in it changes."""
        if path is None:
            return
        former = self._file.state_file
        is_another = former is None or os.path.realpath(former) != os.path.realpath(path)
        if overrides == self._overrides and not is_another:
            return
        file = StateFile(path)
        try:
            if is_another:
                file.prepare()
                _look_into(file, overrides)
            complaint = file.save(overrides)
        except OSError as error:
            raise _unwritable(error) from None
        if complaint is not None:
            self._emit("warn", "state.unsynced", complaint, path=path)

    # -- both

    def look_whether_open(self) -> None:
        """Raises Stopping where nothing is changed any more."""
        if self.closed is not None:
            raise Stopping([Mistake(self._source, 0, 0, "", self.closed)])

    def _prepare(self, settings: Settings, places: Mapping[str, tuple[int, int]]) -> list[Plan]:
        try:
            return prepare(self._parts(), self.settings, settings)
        except SystemRefusal as refusal:
            raise SystemRefusal([self._located(mistake, places) for mistake in refusal.mistakes]) from None

    @staticmethod
    def _abandon(plans: Sequence[Plan]) -> None:
        for plan in reversed(plans):
            plan.abandon()

    def _commit(self, plans: Sequence[Plan], settings: Settings, overrides: Overrides, drains: Drains) -> list[str]:
        former, self.settings, self._overrides = self.settings, settings, overrides
        self.on_drains(drains)
        changes = [words for plan in plans for words in plan.commit()]
        others = ("shutdown", "watch", "state_file")  # these are looked up when they are needed
        changes += [f"{key}: changed" for key in others if getattr(former, key) != getattr(settings, key)]
        for name, pool in settings.pools.items():
            if former.pools.get(name) != pool:
                self.revisions[name] = self.revisions.get(name, 0) + 1
        self.on_change()
        return changes


def prepare(parts: Sequence[Part], old: Settings, new: Settings) -> list[Plan]:
    """The plans of all parts; raises SystemRefusal with the mistakes of all, and then none has prepared anything."""
    plans: list[Plan] = []
    mistakes: list[Mistake] = []
    try:
        for part in parts:
            try:
                plans.append(part.prepare(old, new))
            except SystemRefusal as refusal:
                mistakes += refusal.mistakes
        if mistakes:
            raise SystemRefusal(mistakes)
    except BaseException:
        for plan in reversed(plans):
            plan.abandon()
        raise
    return plans


def _look_into(file: StateFile, overrides: Overrides) -> None:
    """Refuse a file that changes would be lost with."""
    try:
        is_foreign = file.holds_others(overrides)
    except ValueError as error:
        why = f"there is a file already, which cannot be read as one of run-time changes ({error}): move it away"
    else:
        if not is_foreign:
            return
        why = (
            "holds other run-time changes than those in force: move it away to keep those in force in it, "
            "or restart to have those in it"
        )
    raise SystemRefusal([Mistake("", 0, 0, "state_file", why)])


def _unwritable(error: OSError) -> SystemRefusal:
    return SystemRefusal([Mistake("", 0, 0, "state_file", f"cannot be written: {error.strerror or error}")])
