"""The composition root: settings in, one MultiService out, with everything wired to everything.

Promises: every socket is bound before anything is served, and all refusals are told at once; ready means that every
listener is bound and the first round of health checks is over; stopping goes stage by stage (net/drain.py). Called by
tap.py. Nothing below knows this module: what lower floors must make happen above them, they were given as callables here.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from itertools import chain
from random import Random, SystemRandom
from typing import Any, Final

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList
from typing_extensions import override

from lbsvc import __version__
from lbsvc.admin.site import make_site
from lbsvc.config.loader import Loaded
from lbsvc.config.schema import AdminSettings
from lbsvc.core.books import ListenerBooks
from lbsvc.core.pool import Pool
from lbsvc.errors import Mistake, SystemRefusal
from lbsvc.http.h2_checks import check_for
from lbsvc.http.site import RequestIds
from lbsvc.listening import Listeners
from lbsvc.net.binding import adopt, open_sockets
from lbsvc.net.connector import dial
from lbsvc.net.deadlines import Deadlines
from lbsvc.net.drain import Drain
from lbsvc.net.listener import Descriptors, raise_descriptor_limit
from lbsvc.net.prober import HealthChecker
from lbsvc.observe.accesslog import AccessLog
from lbsvc.observe.events import Events, level_in_force
from lbsvc.observe.logwriter import Destinations
from lbsvc.observe.metrics import LbsvcCollector, ReactorLag
from lbsvc.observe.twistedlog import install as take_over_logging
from lbsvc.pools import Pools
from lbsvc.routing import pools_of
from lbsvc.signals import obey_signals

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
        env: Mapping[str, str],
        refuse: Callable[[SystemRefusal], None],
    ) -> None:
        super().__init__()
        self.settings = loaded.settings
        self.reactor = reactor
        self._notes = loaded.notes
        self._places = loaded.places
        self._source = source
        self._refuse = refuse
        self._env = env
        self._rng = SystemRandom()
        # A system call for each request's id or draw would be dear, and neither is a secret.
        self._dice = Random(self._rng.getrandbits(256))
        self._ids = RequestIds(self._dice)
        self._drain: Drain | None = None
        self._unready: str | None = "starting"
        self._admin_ports: list[Any] = []
        self.generation = 1
        self.reloads = {"success": 0, "failure": 0}
        self.last_reload_ok = True
        self._pools: Pools | None = None
        self._listening: Listeners | None = None
        self._stopping: Deferred[Any] | None = None

    # -- as metrics see it

    @property
    def listeners(self) -> list[ListenerBooks]:
        """The listeners' books, brought up to date."""
        if self._listening is None:
            return []
        for site in self._listening.sites:
            site.count()
        return self._listening.books

    @property
    def pools(self) -> list[Pool]:
        """Every pool; none before the start."""
        return self._pools.pools if self._pools is not None else []

    @property
    def log_dropped(self) -> Mapping[str, int]:
        """Lines that the logs have lost, by log."""
        return self._logs.dropped()

    @property
    def roads(self) -> Mapping[str, set[str]]:
        """Which protocols use which pool."""
        roads: dict[str, set[str]] = {name: set() for name in self.settings.pools}
        for listener in self.settings.listeners.values():
            for pool in chain([listener.pool] if listener.pool is not None else [], *map(pools_of, listener.routes)):
                roads[pool].add(listener.protocol)
        return roads

    def ready(self) -> str | None:
        """None, or why not."""
        return self._unready

    # -- start

    @override
    def startService(self) -> None:
        limit = raise_descriptor_limit()
        self._open_logs()
        self.lag = ReactorLag(self.reactor)
        self.deadlines = Deadlines(self.reactor)
        self._checker = HealthChecker(
            self.reactor,
            self._rng,
            lambda backend, detail: pools.tell_flip(backend, detail),
            dial,
            time.time,
            check_for,
        )
        self._pools = pools = Pools(
            self.reactor,
            self.deadlines,
            self._checker,
            self._rng,
            time.time,
            self.emit,
            lambda: self._unready == "starting",
            {name for name, protocols in self.roads.items() if protocols == {"http"}},
        )
        descriptors = Descriptors(limit, self._descriptors_scarce)
        self._listening = listening = Listeners(
            self.reactor, self.deadlines, descriptors, pools, self._dice, self._ids, time.time, self.emit
        )
        self._make(pools, listening)
        self._bind(listening)
        super().startService()
        self.deadlines.start()
        self.lag.start()
        # Members first: the checker's first round is of whoever is there when it starts.
        answers = pools.start()
        self._checker.setServiceParent(self)
        listening.start()
        for listener in listening.listeners:
            listener.accept()
            for address in listener.addresses:
                self.emit(
                    "info",
                    "listener.bound",
                    f"{listener.name} listens on {address}",
                    listener=listener.name,
                    bind=address,
                )
        # Names first: whoever they stand for is checked before we are ready, too.
        named = DeferredList(answers).addCallback(lambda _: self._checker.everyone_asked())
        DeferredList([self._checker.first_round, named]).addCallback(self._first_round_over)
        for note in self._notes:
            self.emit("info", "config.note", note)
        self.reactor.callWhenRunning(self._running)

    def _open_logs(self) -> None:
        settings = self.settings
        self._logs = Destinations()
        access = settings.access_log
        writers, mistakes = {}, []
        for name, path, key in (
            ("events", settings.log.path, "log.path"),
            ("access", access and access.path, "access_log.path"),
        ):
            if path:
                try:
                    writers[name] = self._logs.writer(path, name)
                except OSError as error:
                    mistakes.append(self._mistake(key, f"cannot be opened: {error.strerror or error}"))
        if mistakes:
            self._refuse(SystemRefusal(mistakes))
        level, complaint = level_in_force(settings.log.level, self._env)
        self.events = Events(writers["events"], level, settings.log.format, time.time)
        self.emit = self.events.emit
        self._unlog = take_over_logging(self.events)
        if complaint:
            self.emit("warn", "log.level", complaint)
        self._access: AccessLog | None = None
        if settings.access_log is not None:
            self._access = AccessLog(
                self.reactor, writers["access"], settings.access_log.format, settings.access_log.sample, self._rng
            )

    def _mistake(self, key: str, message: str) -> Mistake:
        """What the system refuses, with the place of the key that asks for it."""
        line, column = self._places.get(key, (0, 0))
        return Mistake(self._source, line, column, key, message)

    def _make(self, pools: Pools, listening: Listeners) -> None:
        """Everything that needs no socket, or every refusal."""
        mistakes: list[Mistake] = []
        for pool_settings in self.settings.pools.values():
            try:
                pools.make(pool_settings)
            except SystemRefusal as refusal:
                mistakes += refusal.mistakes
        for settings in self.settings.listeners.values() if not mistakes else ():
            log = self._access.log if self._access is not None and settings.access_log else None
            try:
                listening.make(settings, log)
            except SystemRefusal as refusal:
                mistakes += refusal.mistakes
        self._refuse_all(mistakes)

    def _refuse_all(self, mistakes: list[Mistake]) -> None:
        if mistakes:
            self._logs.close(1.0)
            self._refuse(SystemRefusal([self._mistake(m.key, m.message) for m in mistakes]))

    def _bind(self, listening: Listeners) -> None:
        """Every socket, or none and every refusal."""
        mistakes: list[Mistake] = []
        for listener in listening.listeners:
            try:
                listener.bind()
            except SystemRefusal as refusal:
                mistakes += refusal.mistakes
        admin = self.settings.admin
        sockets = []
        if admin is not None:
            try:
                sockets = open_sockets(admin.bind, 128)
            except OSError as error:
                reason = error.strerror or str(error)
                mistakes.append(Mistake("", 0, 0, "admin.bind", f"cannot listen on {admin.bind}: {reason}"))
        if mistakes:
            for listener in listening.listeners:
                listener.unbind()
            for made in sockets:
                made.close()
            self._refuse_all(mistakes)
        if admin is not None:
            self._serve_admin(admin, sockets)

    def _serve_admin(self, admin: AdminSettings, sockets: list[Any]) -> None:
        collector = LbsvcCollector(self, self.lag.histogram)
        site = make_site(self.reactor, collector, self.ready, admin.bind.host, admin.hosts, admin.token)
        for made in sockets:
            self._admin_ports.append(adopt(self.reactor, made, site))

    def _running(self) -> None:
        """The reactor runs: signals are ours, and what has been made so far stays."""
        obey_signals(self.reactor, self)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    def _first_round_over(self, result: object) -> None:
        if self._unready == "starting":
            self._unready = None
            for pool in self.pools:
                if not pool.is_available and self._pools is not None:
                    self._pools.tell_empty(pool)
            self.emit("info", "service.ready", f"lbsvc {__version__} is ready", version=__version__)

    # -- what is told

    def _descriptors_scarce(self, limit: int) -> None:
        self.emit(
            "warn", "listener.paused", f"accepting pauses while descriptors are scarce (limit {limit})", limit=limit
        )

    # -- what signals ask for

    def stop_now(self) -> None:
        """Told to stop while stopping: no more waiting."""
        if self._drain is not None:
            self.emit("warn", "service.draining", "told to stop a second time: stopping now")
            self._drain.force()

    def reload(self) -> None:
        """Refused, until it can be done."""
        self.reloads["failure"] += 1
        self.last_reload_ok = False
        self.emit("error", "config.refused", "SIGHUP: reload is not supported yet; the configuration in force stays")

    def upgrade(self) -> None:
        """Refused, until it can be done."""
        self.emit("error", "service.upgrade", "SIGUSR2: upgrade is not supported yet")

    def reopen_logs(self) -> None:
        """Log files may have been renamed."""
        for complaint in self._logs.reopen():
            self.emit("error", "log.reopen", complaint)

    # -- stop

    @override
    def stopService(self) -> Deferred[Any]:
        if self._stopping is not None:
            return self._stopping
        self._unready = "draining"
        shutdown = self.settings.shutdown
        self._drain = Drain(
            self.reactor,
            shutdown.delay,
            shutdown.drain_timeout,
            self._listening.listeners if self._listening is not None else (),
            self._listening.sites if self._listening is not None else (),
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
        if self._listening is None:
            return
        self._listening.stop()
        for listener in self._listening.listeners:
            self.emit("info", "listener.closed", f"{listener.name} accepts no more", listener=listener.name)

    def _count_open(self) -> int:
        """Connections that a drain waits for, and those that have lost their client but not all their bytes."""
        if self._listening is None:
            return 0
        flushing = sum(site.flushing for site in self._listening.sites)
        return sum(books.open for books in self._listening.books) + flushing

    def _drained(self, result: object) -> Any:
        """Everything is answered or cut: stop the rest, the admin interface last."""
        for mirroring in self._listening.mirrors if self._listening is not None else ():
            mirroring.close()
        if self._pools is not None:
            self._pools.stop()
        self.deadlines.stop()
        self.lag.stop()
        stopped = super().stopService()
        for port in self._admin_ports:
            port.stopListening()

        def end(result: object) -> None:
            if self._access is not None:
                self._access.close()
            self.emit("info", "service.stopped", "stopped")
            self._unlog()
            self._logs.close(2.0)

        return stopped.addBoth(end)
