"""Traffic through one of our own listeners, because an operator asked for it, and who answered it.

Promises: the listener's own address is dialled (loopback where it is bound to all of them) as any client would dial it, with
TLS where it has TLS, unverified since that is ourselves, and with a PROXY header where it would want one of us; one run at a
time, over within `LIMIT` seconds, ended by `stop` when the service stops. It is real traffic: routed, limited, refused,
counted and logged as such, with nothing that favours it.

Who answered is known to the request, and not from what backends say: every request of a run carries the same User-
Agent, which ends in 64 random bits and so is nobody else's, and while it runs the listener's access records are shown
to it (serving.py: `show`), whether or not they are logged. A record is made before the end of its answer can be read,
so that whoever has the last answer has all the records; where others carry the traffic (`crew`), their records have come
when what they have counted has. A request that its listener refuses before it has read its head (it is too long, say)
leaves a record that nobody can tell from others': such answers are known by their status, have no backend, and count under
the reason `UNREAD`, so that backends and reasons hold at least as many as there were answers.
Made by app.py, called by controlling.py. Times are seconds.
"""

from __future__ import annotations

import secrets
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol
from urllib.parse import quote

from twisted.internet.defer import Deferred

from lbsvc import __version__
from lbsvc.admin.control import Order, Underway
from lbsvc.config.overlay import Unknown
from lbsvc.config.schema import PoolTls
from lbsvc.core.networks import UNIX, Networks
from lbsvc.core.record import AccessRecord, Record
from lbsvc.http.load import Dial, Load, Plan
from lbsvc.listening import Listeners
from lbsvc.net.client_tls import UpstreamTls
from lbsvc.net.connector import dial
from lbsvc.net.proxyproto import local_header
from lbsvc.serving import Served

#: A run is over after so many seconds, whatever has not been answered.
LIMIT: Final = 10.0
#: What is said of the requests that were not by then, or when it was told to end.
CUT: Final = "timeout: no whole answer when the run ended"

#: Why requests ended that have an answer, and no record of their own.
UNREAD: Final = "unread"

#: What may stand in a request target as it is; all else is percent-encoded.
_SAFE: Final = "/?:@!$&'()*+,;=-._~%[]"
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}

#: Where it stands in a record (core/record.py), so that others' records cost a look.
_AGENT: Final = Record._fields.index("user_agent")


def draw_mark() -> str:
    """64 random bits in hexadecimal, from where secrets come: nobody can guess them from ids that clients are shown."""
    return secrets.token_hex(8)


class Witness:
    """Counts the records of one run's requests, by who answered, and by why they ended."""

    def __init__(self, agent: bytes) -> None:
        self._agent = agent
        self.backends: Counter[tuple[str | None, str | None]] = Counter()
        self.reasons: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()

    def note(self, record: AccessRecord) -> None:
        """A request of the listener has ended, whosever it was."""
        if record[_AGENT] == self._agent:
            seen = Record(*record)
            self.backends[seen.pool, seen.backend] += 1
            self.reasons[seen.reason] += 1
            self.statuses[seen.status] += 1

    def complete(self, statuses: Counter[int]) -> None:
        """These answers came: those without a record get what is known of them."""
        count = (statuses - self.statuses).total()
        if count:
            self.backends[None, None] += count
            self.reasons[UNREAD] += count


class Crew(Protocol):
    """Other processes that carry the traffic (workers/crew.py)."""

    def watch(self, listener: str, agent: bytes, witness: Callable[[tuple[Any, ...]], None] | None) -> None:
        """Have the access records of one client's requests shown to `witness`; None: no longer."""

    def fresh(self) -> Deferred[None]:
        """Fires when all that they had to tell has come, or is late."""


class Sending:
    """What makes the runs."""

    def __init__(
        self,
        reactor: Any,
        listening: Listeners,
        wall: Callable[[], float],
        draw: Callable[[], str] = draw_mark,
        crew: Crew | None = None,
    ) -> None:
        self._reactor = reactor
        self._listening = listening
        self._draw = draw
        self._wall = wall
        self._load: Load | None = None
        self._crew = crew

    def send(self, order: Order) -> Deferred[dict[str, Any]]:
        """See admin/control.py."""
        if self._load is not None:
            raise Underway("traffic is being sent already: one run at a time")
        served = self._listening.served.get(order.listener)
        if served is None or served.settings.protocol != "http" or not served.listener.ports:
            raise Unknown(f"there is no listener {order.listener} that speaks HTTP")
        host, port = way_to(served)
        agent = b"lbsvc/%b (traffic %b)" % (__version__.encode(), self._draw().encode())
        witness = Witness(agent)
        request = write_request(order, host, port, agent)
        plan = Plan(order.requests, order.clients, LIMIT, None, LIMIT)
        self._load = load = Load(
            self._reactor, self._dialler(served, host, port, order.host), request, order.method.encode(), plan
        )
        if self._crew is None:
            served.show(witness.note)
        else:
            self._crew.watch(order.listener, agent, witness.note)
        limit = self._reactor.callLater(LIMIT, load.stop)

        def cancelled(answer: object) -> None:
            load.stop()
            over(None)  # whoever goes away is told what there is, at once

        answer: Deferred[dict[str, Any]] = Deferred(cancelled)

        def over(result: object) -> None:
            if self._load is not load:
                return
            self._load = None
            if self._crew is None:
                served.show(None)
            else:
                self._crew.watch(order.listener, agent, None)
            witness.complete(load.tally.statuses)
            answer.callback(report(load, witness))

        def all_answered(result: object) -> Deferred[None] | None:
            if limit.active():
                limit.cancel()
            return self._crew.fresh() if self._crew is not None else None

        load.start().addCallback(all_answered).addCallback(over)
        return answer

    def stop(self) -> None:
        """The service stops."""
        if self._load is not None:
            self._load.stop()

    def _dialler(self, served: Served, host: str, port: int, name: str | None) -> Dial:
        settings, reactor = served.settings, self._reactor
        tls = None
        if settings.tls is not None:
            tls = UpstreamTls(PoolTls(verify=False), self._wall, ("http/1.1",)).for_host(bare(name) if name else host)
        source = UNIX if host.startswith("/") else host
        is_heralded = settings.proxy_protocol and Networks(settings.trusted_proxies).contains(source)
        header = local_header("v2") if is_heralded else b""
        return lambda protocol, timeout, failed: dial(reactor, host, port, protocol, timeout, failed, tls, header)


def way_to(served: Served) -> tuple[str, int]:
    """Where a listener can be dialled: an address and a port, or the path of a socket and 0. IPv4 comes first."""
    ports = sorted(served.listener.ports, key=lambda port: port.socket.family != socket.AF_INET)
    name = ports[0].socket.getsockname()
    if isinstance(name, str | bytes):
        path = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
        if not path.startswith("/"):
            raise Unknown(f"the socket of the listener {served.name} has no path that could be dialled")
        return path, 0
    host = _ANY.get(name[0], name[0])
    if len(name) == 4 and name[3] and "%" not in host:
        host = f"{host}%{name[3]}"
    return host, name[1]


def write_request(order: Order, host: str, port: int, agent: bytes) -> bytes:
    """The request that is sent again and again."""
    target = quote(order.path, safe=_SAFE)
    bracketed = f"[{host.partition('%')[0]}]" if ":" in host else host
    own = f"{bracketed}:{port}" if port else "localhost"
    head = f"{order.method} {target} HTTP/1.1\r\nHost: {order.host or own}\r\nAccept: */*\r\nUser-Agent: "
    return head.encode("ascii") + agent + b"\r\n\r\n"


def bare(authority: str) -> str:
    """The name in it, without port and brackets."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority if authority.count(":") > 1 else authority.partition(":")[0]


def report(load: Load, witness: Witness) -> dict[str, Any]:
    """What came of it, as JSON: `Traffic` of admin/schemas.py."""
    tally, latencies = load.tally, load.tally.latencies
    errors = Counter(tally.errors)
    if tally.begun > tally.done:
        errors[CUT] += tally.begun - tally.done
    return {
        "sent": tally.begun,
        "statuses": {str(status): count for status, count in sorted(tally.statuses.items())},
        "reasons": dict(witness.reasons.most_common()),
        "errors": dict(errors.most_common()),
        "backends": [
            {"pool": pool, "name": name, "requests": count}
            for (pool, name), count in sorted(witness.backends.items(), key=lambda each: _by_name(*each[0]))
        ],
        "latency_ms": {
            **{f"p{p}": round(latencies.percentile(p) * 1000, 3) if latencies.count else None for p in (50, 95, 99)},
            "max": round(latencies.most * 1000, 3) if latencies.count else None,
        },
        "elapsed": round(tally.elapsed, 6),
    }


def _by_name(pool: str | None, name: str | None) -> tuple[bool, str, str]:
    return name is None, pool or "", name or ""
