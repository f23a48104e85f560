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
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc import __version__
from lbsvc.admin.site import GuardedSite, make_site, place_of
from lbsvc.adminlistener import AdminListener
from lbsvc.config.loader import Loaded
from lbsvc.config.schema import AdminSettings, Settings
from lbsvc.controlling import Controlling
from lbsvc.errors import ConfigErrors, Mistake, SystemRefusal
from lbsvc.http.h2_checks import check_for
from lbsvc.listening import Listeners
from lbsvc.logs import Logs
from lbsvc.net.aside import run_aside
from lbsvc.net.connector import dial
from lbsvc.net.drain import Drain
from lbsvc.net.inheriting import Inherited
from lbsvc.net.notify import Notifier
from lbsvc.net.prober import HealthChecker
from lbsvc.net.sockets import opener
from lbsvc.net.systemd import take_passed_sockets
from lbsvc.observe.crew import worker_series
from lbsvc.observe.metrics import LbsvcCollector
from lbsvc.pools import Pools
from lbsvc.reaping import reap_orphans
from lbsvc.reloading import Part, Reloading
from lbsvc.sending import Sending
from lbsvc.signals import obey_signals
from lbsvc.supervising import Supervision
from lbsvc.traffic import GC_THRESHOLDS, Sources, Traffic
from lbsvc.upgrading import Upgrading
from lbsvc.viewing import Viewing
from lbsvc.watching import Known, Watch
from lbsvc.workers.leading import Leading
from lbsvc.workers.workforce import WORKFORCE


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
        inherited: Inherited | None = None,
    ) -> None:
        super().__init__()
        self.reactor = reactor
        self._notes = loaded.notes
        self._source = source
        self._refuse = refuse
        self._rng = SystemRandom()
        # A system call for each request's id or draw would be dear, and neither is a secret.
        self._dice = Random(self._rng.getrandbits(256))
        #: from the process whose place we take, until it is ours
        self._inherited = inherited
        self._drain: Drain | None = None
        self._stopping: Deferred[Any] | None = None
        self.unready: str | None = "starting"
        self.traffic: Traffic | None = None
        #: who carries the traffic for us; None: we do
        self.leading = Leading(loaded.settings.workers, reactor, env) if loaded.settings.workers > 1 else None
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
        self.admin = AdminListener(reactor, self._make_site, opener({}, inherited))
        try:
            self._passed = take_passed_sockets(env, os.getpid()) if inherited is None else inherited.passed
        except SystemRefusal as refusal:
            refuse(refusal)
        self.upgrading = Upgrading(reactor, env, self, self._passed, self.logs.emit)
        self._parts: tuple[Part, ...] = ()

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self.reloading.settings

    # -- start

    @override
    def startService(self) -> None:
        try:
            self.logs.open(self.settings)
            self.reloading.restore(self._inherited.changes if self._inherited is not None else None)
        except SystemRefusal as refusal:
            self._refuse_start(refusal.mistakes)
        if self._inherited is None:
            self.supervision.start()
        self._checker = HealthChecker(self.reactor, self._rng, self._tell_flip, dial, time.time, check_for)
        sources = Sources(time.time, self._dice, opener(self._passed, self._inherited))
        if self.leading is not None:
            sources = self.leading.led(sources)
        self.traffic = traffic = Traffic(
            self.reactor, self.settings, self.logs, self._checker, sources, lambda: self.unready == "starting"
        )
        self.sending = Sending(self.reactor, traffic.listening, time.time, crew=self.leading)
        try:
            traffic.make(self.settings)
        except SystemRefusal as refusal:
            self._refuse_start(refusal.mistakes)
        if self.leading is not None:
            self.leading.prepare(self.settings, traffic, self._checker, self.reloading, self.emit)
            self.supervision.is_well = self.leading.is_well
        self._bind(traffic)
        if self._inherited is None:
            self.admin.serve(self.settings.admin)
        else:
            self.reloading.closed = "the service takes another process's place, and has not got it yet"
            self._inherited.attach(self.reactor, self._take_over, self._orphaned)
        super().startService()
        # Members first: the checker's first round is of whoever is there when it starts.
        answers = traffic.start()
        if self.leading is None or self._inherited is not None:
            self._checker.setServiceParent(self)
        if self._inherited is None or self.leading is not None:  # a leader holds sockets for others, and accepts nobody
            self._accept(traffic)
        # Listeners come last: where binds overlap, to prepare is to close.
        self._parts = (WORKFORCE, *traffic.parts, self.admin, traffic.listening)
        self.reloading.on_drains = traffic.pools.take_drains
        # Names first: whoever they stand for is checked before we are ready, too.
        named = DeferredList(answers).addCallback(lambda _: self._checker.everyone_asked())
        awaited: list[Deferred[Any]] = [self._checker.first_round, named]
        if self.leading is not None and self._inherited is None:
            awaited.append(self.leading.start(lambda: self._checker.setServiceParent(self)))
        DeferredList(awaited).addCallback(self._first_round_over)
        for note in self._notes:
            self.emit("info", "config.note", note)
        self.reloading.on_change = self._look_whether_watched
        self._look_whether_watched()
        self.reactor.callWhenRunning(self._running)

    def _accept(self, traffic: Traffic) -> None:
        traffic.accept()
        for listener in traffic.listening.listeners:
            for address in listener.addresses:
                name = listener.name
                self.emit("info", "listener.bound", f"{name} listens on {address}", listener=name, bind=address)

    @property
    def pools(self) -> Pools | None:
        """All of them; None before the start."""
        return self.traffic.pools if self.traffic is not None else None

    @property
    def listening(self) -> Listeners | None:
        """All of them; None before the start."""
        return self.traffic.listening if self.traffic is not None else None

    @property
    def emit(self) -> Callable[..., None]:
        """The event log."""
        return self.logs.emit

    def _tell_flip(self, backend: Any, detail: str) -> None:
        assert self.pools is not None
        self.pools.tell_flip(backend, detail)

    def _refuse_start(self, mistakes: list[Mistake]) -> None:
        self.logs.close(1.0)
        self._refuse(SystemRefusal(self.reloading.locate(mistakes)))

    def _bind(self, traffic: Traffic) -> None:
        """Every socket, or none and every refusal."""
        mistakes = traffic.bind()
        try:
            self.admin.bind(self.settings.admin)
        except SystemRefusal as refusal:
            mistakes += refusal.mistakes
        if mistakes:
            traffic.unbind()
            self.admin.unbind()
            self._refuse_start(mistakes)

    def _make_site(self, admin: AdminSettings) -> GuardedSite:
        assert self.traffic is not None
        control = Controlling(
            self.reactor,
            self.view,
            self.reloading,
            self.logs.events,
            self._source,
            self.traffic.pools,
            self.sending,
            self.leading,
            self.upgrading,
        )
        shedding = self.traffic.shedding
        leading = self.leading
        overload = leading.overload(shedding.overload) if leading is not None else shedding.overload
        more = worker_series(leading) if leading is not None else ()
        collector = LbsvcCollector(self.view, shedding.lag.histogram, overload, more)
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
        if self.unready != "starting":
            return
        if (waiting := self._inherited) is None:
            self._ready()
        else:  # now that it is known how everybody is, workers may begin
            led = self.leading.get_ready() if self.leading is not None else succeed(None)
            led.addCallbacks(lambda _: waiting.ready(), lambda failure: waiting.give_up(str(failure.value)))

    def _take_over(self) -> None:
        """The process whose place we take has left it to us."""
        self._inherited = None
        self.reopen_logs()  # they may have been renamed while only the old process was told so
        if self.leading is not None:
            self.leading.accept()
        elif self.traffic is not None:
            self._accept(self.traffic)
        self.reloading.take_over()
        self.admin.serve(self.settings.admin)
        self.supervision.start()
        self._look_whether_watched()
        self._ready()

    def _orphaned(self, why: str) -> None:
        """It has ended, or has been told to stop; with us it was nothing, then."""
        self.emit("error", "service.upgrade", f"upgrade: {why}")
        self.reactor.stop()

    def _ready(self) -> None:
        if self.unready == "starting":
            self.unready = None
            assert self.pools is not None
            for pool in self.pools.pools:
                if not pool.is_available:
                    self.pools.tell_empty(pool)
            self.emit("info", "service.ready", f"lbsvc {__version__} is ready", version=__version__)
            self.supervision.ready()

    # -- other settings

    def _load_again(self) -> Deferred[Loaded]:
        assert self._load is not None
        if self._watch is not None:
            self._watch.note()
        return run_aside(self.reactor, self._load)

    def reload(self, who: str = "SIGHUP") -> None:
        """Read the file again; what comes of it is in the log."""

        def unforeseen(failure: Failure) -> None:
            self.emit("error", "twisted", f"a reload failed: {failure.value}", traceback=failure.getTraceback())

        reloading = self.reloading.reload(who)
        reloading.addErrback(lambda failure: failure.trap(ConfigErrors, SystemRefusal) and None).addErrback(unforeseen)

    def _file_changed(self) -> None:
        self.reload("watch")

    def _look_whether_watched(self) -> None:
        """`watch` may have been switched."""
        if self._watch is not None and self._stopping is None and self._inherited is None:
            (self._watch.start if self.settings.watch else self._watch.stop)()

    # -- what signals ask for

    @property
    def is_stopping(self) -> bool:
        """Has it been told to stop?"""
        return self._stopping is not None

    def stop_now(self) -> None:
        """Told to stop while stopping: no more waiting."""
        if self._drain is not None:
            self.emit("warn", "service.draining", "told to stop a second time: stopping now")
            self._drain.force()

    def upgrade(self) -> None:
        """Start the next process, which takes our place."""
        self.upgrading.obey()

    def succeeded(self) -> None:
        """It has: end, with what is under way."""
        if self._stopping is None:
            self.reactor.stop()

    def reopen_logs(self) -> None:
        """Log files may have been renamed."""
        for complaint in self.logs.reopen():
            self.emit("error", "log.reopen", complaint)
        if self.leading is not None:
            self.leading.crew.reopen_logs()

    # -- stop

    @override
    def stopService(self) -> Deferred[Any]:
        if self._stopping is not None:
            return self._stopping
        self.unready = "draining"
        self.reloading.closed = "the service is stopping"
        if self._watch is not None:
            self._watch.stop()
        if self.traffic is not None:
            self.sending.stop()
        self.upgrading.stop()
        if self._inherited is not None:
            self._inherited.close()
        self.supervision.stopping()
        self._drain = self._way_out()
        self._stopping = self._drain.run()
        self._stopping.addCallback(self._drained)
        return self._stopping

    def _way_out(self) -> Drain:
        shutdown = self.settings.shutdown
        is_gentle = self.upgrading.successor is not None
        delay, timeout = 0.0 if is_gentle else shutdown.delay, shutdown.drain_timeout

        def tell(text: str) -> None:
            self.emit("warn" if text.startswith("cutting") else "info", "service.draining", text)

        if self.traffic is None:
            return Drain(self.reactor, delay, timeout, (), (), lambda: 0, tell, lambda: None)
        if self.leading is not None:
            return self.leading.drain(delay, timeout, tell, self._accepting_ends, is_gentle)
        return self.traffic.drain(delay, timeout, tell, self._accepting_ends, is_gentle)

    def _accepting_ends(self) -> None:
        """What is left needs no checks any more, and backends of our own (`respond` listeners) would fail theirs."""
        if self._checker.running:
            self._checker.disownServiceParent()
        assert self.traffic is not None
        self.traffic.stop_accepting()
        for listener in self.traffic.listening.listeners:
            self.emit("info", "listener.closed", f"{listener.name} accepts no more", listener=listener.name)

    def _drained(self, result: object) -> Any:
        """Everything is answered or cut: stop the rest, the admin interface last."""
        if self.traffic is not None:
            self.traffic.stop()
        if self.leading is not None:
            self.leading.stop()
        stopped = super().stopService()
        self.admin.close()

        def end(result: object) -> None:
            self.supervision.stop()
            self.emit("info", "service.stopped", "stopped")
            self.logs.close(2.0)

        return stopped.addBoth(end)
