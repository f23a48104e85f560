"""The composition root: settings in, one MultiService out, with everything wired to everything.

Promises: every socket is bound before anything is served, and all refusals are told at once; ready means that every
listener is bound and the first round of health checks is over; stopping goes stage by stage (net/drain.py). Other settings
come by reloading.py, for which this names the parts. Called by tap.py. Nothing below knows this module: what lower floors
must make happen above them, they were given as callables here.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, MutableMapping
from random import Random, SystemRandom
from typing import Any, Final

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc import __version__
from lbsvc.admin.site import GuardedSite, make_site, place_of
from lbsvc.adminlistener import AdminListener
from lbsvc.config.loader import Loaded
from lbsvc.config.schema import AdminSettings, Settings
from lbsvc.controlling import Controlling
from lbsvc.cutting import cut
from lbsvc.errors import ConfigErrors, Mistake, SystemRefusal
from lbsvc.http.h2_checks import check_for
from lbsvc.http.site import RequestIds
from lbsvc.listening import Listeners
from lbsvc.logs import Logs
from lbsvc.net.aside import run_aside
from lbsvc.net.connector import dial
from lbsvc.net.deadlines import Deadlines
from lbsvc.net.drain import Drain
from lbsvc.net.listener import Descriptors, raise_descriptor_limit
from lbsvc.net.notify import Notifier
from lbsvc.net.prober import HealthChecker
from lbsvc.net.systemd import take_passed_sockets
from lbsvc.observe.metrics import LbsvcCollector
from lbsvc.pools import Pools
from lbsvc.reaping import reap_orphans
from lbsvc.reloading import Part, Reloading
from lbsvc.sending import Sending
from lbsvc.shedding import Shedding
from lbsvc.signals import obey_signals
from lbsvc.supervising import Supervision
from lbsvc.viewing import Viewing
from lbsvc.watching import Known, Watch

#: How many young objects may gather before a collection looks at them. Requests leave no cycles behind, so that the
#: default of 700 only costs (tests/bench, `http`: 6 %); what does form cycles is still found.
GC_THRESHOLDS: Final = (20_000, 20, 50)


class Balancer(MultiService):
    """The whole service."""

    def __init__(
        self,
        loaded: Loaded,
        source: str,
        reactor: Any,
        env: MutableMapping[str, str],
        refuse: Callable[[SystemRefusal], None],
        load: Callable[[], Loaded] | None = None,
        before: Known | None = None,
    ) -> None:
        super().__init__()
        self.reactor = reactor
        self._notes = loaded.notes
        self._source = source
        self._refuse = refuse
        self._rng = SystemRandom()
        # A system call for each request's id or draw would be dear, and neither is a secret.
        self._dice = Random(self._rng.getrandbits(256))
        self._drain: Drain | None = None
        self._stopping: Deferred[Any] | None = None
        self.unready: str | None = "starting"
        self.pools: Pools | None = None
        self.listening: Listeners | None = None
        #: None where there is no file that could be read again
        self._watch = Watch(reactor, source, self._file_changed, before) if load is not None else None
        self._load = load
        self.logs = Logs(reactor, time.time, self._rng, env)
        self.view = Viewing(self, reactor.seconds)
        self.supervision = Supervision(reactor, Notifier(env, os.getpid()), self.view)
        self.reloading = Reloading(
            loaded,
            source,
            self._load_again if load is not None else None,
            lambda: self._parts,
            self.logs.emit,
            self.supervision.tell,
        )
        self.admin = AdminListener(reactor, self._make_site)
        try:
            self._passed = take_passed_sockets(env, os.getpid())
        except SystemRefusal as refusal:
            refuse(refusal)
        self._parts: tuple[Part, ...] = ()

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self.reloading.settings

    # -- start

    @override
    def startService(self) -> None:
        limit = raise_descriptor_limit()
        try:
            self.logs.open(self.settings)
        except SystemRefusal as refusal:
            self._refuse_start(refusal.mistakes)
        self.emit = emit = self.logs.emit
        try:
            self.reloading.restore()
        except SystemRefusal as refusal:
            self._refuse_start(refusal.mistakes)
        self.supervision.start()
        self.shedding = Shedding(self.reactor, self.settings.overload, emit)
        self.deadlines = Deadlines(self.reactor)
        pools: Pools
        self._checker = HealthChecker(
            self.reactor,
            self._rng,
            lambda backend, detail: pools.tell_flip(backend, detail),
            dial,
            time.time,
            check_for,
        )
        roads = self.view.roads
        self.pools = pools = Pools(
            self.reactor,
            self.deadlines,
            self._checker,
            self._rng,
            time.time,
            emit,
            lambda: self.unready == "starting",
            {name for name, protocols in roads.items() if protocols == {"http"}},
        )
        self.listening = listening = Listeners(
            self.reactor,
            self.deadlines,
            Descriptors(limit, self._descriptors_scarce),
            pools,
            self._dice,
            RequestIds(self._dice),
            time.time,
            emit,
            self._passed,
            self.shedding.overload,
        )
        self.sending = Sending(self.reactor, listening, time.time)
        pools.on_cut = lambda backend: cut(backend, listening.sites, listening.mirrors)
        listening.log = self.logs.log
        self.logs.on_change = self._log_changed
        self._make(pools, listening)
        self._bind(listening)
        super().startService()
        self.deadlines.start()
        self.shedding.start()
        # Members first: the checker's first round is of whoever is there when it starts.
        answers = pools.start()
        self._checker.setServiceParent(self)
        listening.start()
        for listener in listening.listeners:
            listener.accept()
            for address in listener.addresses:
                words = f"{listener.name} listens on {address}"
                emit("info", "listener.bound", words, listener=listener.name, bind=address)
        # Listeners come last: where binds overlap, to prepare is to close.
        self._parts = (self.logs, self.shedding, pools, self.admin, listening)
        # Names first: whoever they stand for is checked before we are ready, too.
        named = DeferredList(answers).addCallback(lambda _: self._checker.everyone_asked())
        DeferredList([self._checker.first_round, named]).addCallback(self._first_round_over)
        for note in self._notes:
            emit("info", "config.note", note)
        self.reloading.on_change = self._look_whether_watched
        self._look_whether_watched()
        self.reactor.callWhenRunning(self._running)

    def _make(self, pools: Pools, listening: Listeners) -> None:
        """Everything that needs no socket, or every refusal."""
        mistakes: list[Mistake] = []
        for pool in self.settings.pools.values():
            try:
                pools.make(pool)
            except SystemRefusal as refusal:
                mistakes += refusal.mistakes
        for listener in self.settings.listeners.values() if not mistakes else ():
            try:
                listening.make(listener)
            except SystemRefusal as refusal:
                mistakes += refusal.mistakes
        if mistakes:
            self._refuse_start(mistakes)

    def _refuse_start(self, mistakes: list[Mistake]) -> None:
        self.logs.close(1.0)
        self._refuse(SystemRefusal(self.reloading.locate(mistakes)))

    def _bind(self, listening: Listeners) -> None:
        """Every socket, or none and every refusal."""
        mistakes: list[Mistake] = []
        binds = [*(listener.bind for listener in listening.listeners), lambda: self.admin.bind(self.settings.admin)]
        for bind in binds:
            try:
                bind()
            except SystemRefusal as refusal:
                mistakes += refusal.mistakes
        if mistakes:
            for listener in listening.listeners:
                listener.unbind()
            self.admin.unbind()
            self._refuse_start(mistakes)
        self.admin.serve(self.settings.admin)

    def _make_site(self, admin: AdminSettings) -> GuardedSite:
        assert self.pools is not None
        control = Controlling(
            self.reactor, self.view, self.reloading, self.logs.events, self._source, self.pools, self.sending
        )
        collector = LbsvcCollector(self.view, self.shedding.lag.histogram, self.shedding.overload)
        return make_site(
            self.reactor,
            collector,
            self.view.ready,
            admin.bind.host,
            admin.hosts,
            admin.token,
            control,
            self.logs.emit,
            place=place_of(admin.bind),
        )

    def _running(self) -> None:
        """The reactor runs: signals are ours, and what has been made so far stays."""
        obey_signals(self.reactor, self)
        reap_orphans(self.reactor, os.getpid())
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    def _first_round_over(self, result: object) -> None:
        if self.unready == "starting":
            self.unready = None
            assert self.pools is not None
            for pool in self.pools.pools:
                if not pool.is_available:
                    self.pools.tell_empty(pool)
            self.emit("info", "service.ready", f"lbsvc {__version__} is ready", version=__version__)
            self.supervision.ready()

    # -- what is told

    def _descriptors_scarce(self, limit: int) -> None:
        words = f"accepting pauses while descriptors are scarce (limit {limit})"
        self.emit("warn", "listener.paused", words, limit=limit)

    def _log_changed(self) -> None:
        """Before the listeners go over to other settings."""
        assert self.listening is not None
        self.listening.log = self.logs.log

    # -- other settings

    def _load_again(self) -> Deferred[Loaded]:
        assert self._load is not None
        if self._watch is not None:
            self._watch.note()
        return run_aside(self.reactor, self._load)

    def reload(self, who: str = "SIGHUP") -> None:
        """Read the file again; what comes of it is in the log."""

        def refused(failure: Failure) -> None:
            failure.trap(ConfigErrors, SystemRefusal)

        def unforeseen(failure: Failure) -> None:
            self.emit("error", "twisted", f"a reload failed: {failure.value}", traceback=failure.getTraceback())

        self.reloading.reload(who).addErrback(refused).addErrback(unforeseen)

    def _file_changed(self) -> None:
        self.reload("watch")

    def _look_whether_watched(self) -> None:
        """`watch` may have been switched."""
        if self._watch is not None and self._stopping is None:
            (self._watch.start if self.settings.watch else self._watch.stop)()

    # -- what signals ask for

    def stop_now(self) -> None:
        """Told to stop while stopping: no more waiting."""
        if self._drain is not None:
            self.emit("warn", "service.draining", "told to stop a second time: stopping now")
            self._drain.force()

    def upgrade(self) -> None:
        """Refused, until it can be done."""
        self.emit("error", "service.upgrade", "SIGUSR2: upgrade is not supported yet")

    def reopen_logs(self) -> None:
        """Log files may have been renamed."""
        for complaint in self.logs.reopen():
            self.emit("error", "log.reopen", complaint)

    # -- stop

    @override
    def stopService(self) -> Deferred[Any]:
        if self._stopping is not None:
            return self._stopping
        self.unready = "draining"
        self.reloading.closed = "the service is stopping"
        if self._watch is not None:
            self._watch.stop()
        if self.listening is not None:
            self.sending.stop()
        self.supervision.stopping()
        shutdown = self.settings.shutdown
        self._drain = Drain(
            self.reactor,
            shutdown.delay,
            shutdown.drain_timeout,
            self.listening.listeners if self.listening is not None else (),
            self.listening.sites if self.listening is not None else (),
            self._count_open,
            lambda text: self.emit("info", "service.draining", text),
            self._accepting_ends,
        )
        self._stopping = self._drain.run()
        self._stopping.addCallback(self._drained)
        return self._stopping

    def _accepting_ends(self) -> None:
        """What is left needs no checks any more, and backends of our own (`respond` listeners) would fail theirs."""
        self._checker.disownServiceParent()
        if self.listening is None:
            return
        self.listening.stop()
        for listener in self.listening.listeners:
            self.emit("info", "listener.closed", f"{listener.name} accepts no more", listener=listener.name)

    def _count_open(self) -> int:
        """Connections that a drain waits for, and those that have lost their client but not all their bytes."""
        return self.listening.open if self.listening is not None else 0

    def _drained(self, result: object) -> Any:
        """Everything is answered or cut: stop the rest, the admin interface last."""
        for mirroring in self.listening.mirrors if self.listening is not None else ():
            mirroring.close()
        if self.pools is not None:
            self.pools.stop()
        self.deadlines.stop()
        self.shedding.stop()
        stopped = super().stopService()
        self.admin.close()

        def end(result: object) -> None:
            self.supervision.stop()
            self.emit("info", "service.stopped", "stopped")
            self.logs.close(2.0)

        return stopped.addBoth(end)
