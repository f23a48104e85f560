"""One request's tries: which backend gets it, how it is sent, and whether it is sent again (milestones choose and open).

Promises: at most one try at a time; each has a lease that is released once; a request that a backend may have seen goes out
again only if its method is listed and its body is still whole, never after a byte of an answer has gone down, and within
attempts, budget and deadlines (contract.md, "Behaviour"). The exchange is made of this.

Deadlines: the pool's `connect` and `response` are kept by the dial and the upstream connection; `timeout` of the route and
`per_try_timeout` here, by the exchange being watched itself, which costs only those requests that have one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.choosing import must_wait, reason_for_nobody
from lbsvc.core.lease import Lease
from lbsvc.core.overload import RETRY_AFTER
from lbsvc.core.queueing import Ticket
from lbsvc.core.retry import backoff_delay, may_repeat
from lbsvc.errors import REASONS
from lbsvc.http.messages import ResponseHead
from lbsvc.http.outgoing import Outgoing
from lbsvc.net.deadlines import NEVER

if TYPE_CHECKING:
    from lbsvc.http.either import UpstreamSide

#: How a try may have ended that another may follow -> the word of `retry.when` for it, where something was sent.
_CAUSES: Final = {
    Outcome.CONNECT_FAILED: "connect_failure",
    Outcome.CONNECT_TIMEOUT: "connect_failure",
    Outcome.TLS_VERIFY: "connect_failure",  # nothing was sent: another backend may be who it should be
    Outcome.RESET: "reset",
    Outcome.TIMEOUT: "timeout",
}
#: What is no fault of a connection that was being used, where nothing was sent: it counts as one that could not be made.
_UNSENT: Final = (Outcome.TIMEOUT, Outcome.RESET)


class Trying(Outgoing):
    """The part of an exchange that deals with backends. Defaults stand on the class, so that a plain request sets few."""

    began: float
    pending: Any = None  # a dial, or the pause before another try
    attempts = 0
    tried: tuple[Backend, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()  # the tries that were not the last: backend and reason, for the log
    released: Backend | None = None  # the last one that was used up, for the log
    was_kept_connection = False  # this try went out on a connection that had idled
    must_dial = False
    responded = False
    status = 0
    sent_at = 0.0  # when the client's last byte came, where that was not with its head
    connected_at = 0.0
    ticket: Ticket | None = None  # its place in the pool's queue
    placed_at = 0.0  # when it got a place that it had waited for
    preferred: Backend | None = None  # the backend that its client belongs to
    is_old_cookie = False  # its client's cookie is to be set again
    is_hurried = False  # its client has said how long it may take, which says nothing about backends
    keeps_home = False  # served elsewhere this once: the client still belongs where it did
    key: int | None = None  # what an algorithm that hashes knows it by
    deadline = NEVER
    slot = NEVER
    _due = NEVER  # when the route's `timeout` is over
    _try_due = NEVER  # when this try's is

    # -- not admitted

    def turn_away(self) -> None:
        """There is more to do than can be done: the client shall come again, later, and on another connection."""
        self.site.books.rejected["overload"] += 1
        self.connection.end_after_this()
        self.refuse(503, "overload", retry_after=RETRY_AFTER)
        self.connection.drain()

    # -- choose, open

    def choose(self) -> None:
        """Take a backend, and a connection to it."""
        self.pending = None
        upstreams = self.upstreams
        pool = upstreams.pool
        if upstreams.placement is not None:
            lease = upstreams.placement.find(self, False)
        else:
            lease = pool.pick(self.tried) if self.tried else pool.pick()
            if lease is None and self.tried:
                # "another backend first": where there is no other, the same one once more
                lease = pool.pick()
        if lease is not None:
            self.begin(lease)
        elif upstreams.placement is not None and must_wait(pool, self.preferred, self.tried):
            self._enter_queue()
        else:
            self.refuse(503, reason_for_nobody(pool))

    def begin(self, lease: Lease) -> None:
        """One try, with this backend."""
        upstreams = self.upstreams
        self.lease = lease
        self.attempts += 1
        if upstreams.patience is not None:
            self._limit_try(upstreams.patience)
        backend = lease.backend
        multiplexed = backend.multiplexed
        if not self.must_dial and (backend.idle if multiplexed is None else not self.head.upgrade):
            header = upstreams.header_for(self.connection) if upstreams.is_heralding else b""
            may_repeat = self.request_ended and self.head.method in upstreams.repeatable
            connection = upstreams.take_idle(backend, may_repeat, header)
            if connection is not None:
                self.was_kept_connection = True
                self.send(connection, self.began if self.attempts == 1 else self.site.seconds())
                return
        self.open()

    def _enter_queue(self) -> None:
        """Every backend is at its limit: wait for a place, behind those who came before."""
        queue = self.upstreams.pool.queue
        self.ticket = queue.enter(self._take_turn)
        if self.ticket is None:
            if not self._goes_elsewhere():
                self.refuse(503, "queue_full")
            return
        # Its body is read on meanwhile, as far as it would be kept anyway: so a client that goes is noticed.
        self._limit_try(self.upstreams.settings.queue.timeout)

    def _goes_elsewhere(self) -> bool:
        """Whether a client whose own backend has no room is served by another, this once."""
        placement = self.upstreams.placement
        lease = placement.find_other(self) if placement is not None else None
        if lease is None:
            return False
        ticket, self.ticket = self.ticket, None
        if ticket is not None:
            self.placed_at = self.site.seconds()
            self.upstreams.pool.queue.leave(ticket)
        self._limit_try(None)
        self.begin(lease)
        self.went_late()
        return True

    def _take_turn(self) -> bool:
        """A place is free, and it is ours to take, if it is of use."""
        placement = self.upstreams.placement
        assert placement is not None
        lease = placement.find(self, True)
        if lease is None:
            if must_wait(placement.pool, self.preferred, self.tried):
                return False
            self.ticket = None
            self.refuse(503, reason_for_nobody(placement.pool))
            return True
        self.ticket = None
        self.placed_at = self.site.seconds()
        self._limit_try(None)
        self.begin(lease)
        self.went_late()
        return True

    def went_late(self) -> None:
        """A first try that has waited may have gone out by now: its backend's time has begun then, not with the request."""
        if self.tried_at == self.began:
            self.tried_at = self.site.seconds()

    def open(self) -> None:
        """Dial; meanwhile the client's body waits in its socket."""
        upstreams, lease = self.upstreams, self.lease
        assert lease is not None
        self.was_kept_connection = False
        multiplexed = lease.backend.multiplexed
        if self.head.upgrade and multiplexed is not None and multiplexed.must:
            self.attempts -= 1  # nobody was asked
            self.refuse(501, "bad_request", "an upgrade, and its backend speaks HTTP/2 alone")
            return
        if not self.request_ended:
            self.connection.pause_request()
        self.tried_at = self.site.seconds()
        header = upstreams.header_for(self.connection) if upstreams.is_heralding else b""
        pending = upstreams.dial(lease.backend, self.dialled, self.dial_failed, header, self.head.upgrade)
        if self.upstream is None and self.lease is lease:
            self.pending = pending  # neither end of it has come yet

    def dialled(self, connection: UpstreamSide) -> None:
        """The dial has come through."""
        self.pending = None
        self.connected_at = now = self.site.seconds()
        self.send(connection, now)

    def dial_failed(self, outcome: Outcome, detail: str) -> None:
        """The dial has failed: nothing was sent."""
        self.pending = None
        self.try_failed(outcome, detail, sent=False)

    # -- how a try ends that brought no answer

    def try_failed(self, outcome: Outcome, detail: str, sent: bool, is_ours: bool = False) -> None:
        """One try is over without an answer: another one, or the end. `is_ours`: the backend is not to blame."""
        upstreams, lease = self.upstreams, self.lease
        assert lease is not None
        policy = upstreams.settings.retry
        whole = self.is_whole
        self.awaits_continue = False
        sent = sent or not whole
        is_free = not sent or (self.was_kept_connection and self.head.method in policy.methods)
        if outcome is Outcome.RESET and whole and is_free and not self.must_dial:
            # The backend closed a connection that had idled, as it may, or has said that it does not look at this request:
            # the same backend, on a new one. No retry.
            self.must_dial = True
            self.open()
            return
        self.release(Outcome.ABANDONED if is_ours else outcome)
        word = "overload" if outcome is Outcome.ABANDONED else outcome.reason
        cause = _CAUSES.get(outcome, "") if sent or outcome not in _UNSENT else "connect_failure"
        if self.attempts < policy.attempts and may_repeat(policy, self.head.method, sent, whole, cause):
            if upstreams.pool.budget.may_retry(self.site.seconds()):
                self._try_again(lease.backend, word)
                return
            upstreams.pool.budget_exhausted += 1
            self.failures = (*self.failures, (lease.backend.name, word))
            self.refuse(REASONS[word], "retry_budget")
            return
        # It has not looked at the request, and says why: another version of HTTP is wanted (h2_upstream.py).
        self.refuse(REASONS[word], word, detail if outcome is Outcome.PROTOCOL and not sent else "")

    def is_tried_again(self, head: ResponseHead, ended: bool, word: str = "") -> bool:
        """Whether an answer with this status is dropped, and the request tried once more instead (`retry.when`).

        `word` is that of a gRPC code, which only calls have: their one method need not be listed.
        """
        upstreams, lease, upstream = self.upstreams, self.lease, self.upstream
        policy = upstreams.settings.retry
        if lease is None or upstream is None or self.attempts >= policy.attempts:
            return False
        if not self.is_whole or not (word or self.head.method in policy.methods):
            return False
        if not upstreams.pool.budget.may_retry(self.site.seconds()):
            upstreams.pool.budget_exhausted += 1
            return False
        self.upstream = None
        if ended:
            upstream.end(self.request_ended)
        else:
            upstream.cut()
        self.status = self.judge(head.status)
        self.release(Outcome.OK)
        self.status = 0
        self.awaits_continue = False
        self._try_again(lease.backend, word or str(head.status))
        return True

    def judge(self, status: int) -> int:
        """The status that a backend's answer counts as, for its guard."""
        return status

    def _try_again(self, backend: Backend, reason: str) -> None:
        upstreams = self.upstreams
        upstreams.pool.retries += 1
        self.tried = (*self.tried, backend)
        self.failures = (*self.failures, (backend.name, reason))
        self.must_dial = False
        delay = backoff_delay(upstreams.settings.retry, self.attempts, upstreams.rng)
        if not delay:
            self.choose()
            return
        if not self.request_ended:
            self.connection.pause_request()
        self._limit_try(None)
        self.pending = upstreams.reactor.callLater(delay, self.choose)

    def release(self, outcome: Outcome) -> None:
        """Give back the lease, if there is one."""
        lease, self.lease = self.lease, None
        if lease is not None:
            self.released = lease.backend
            lease.release(outcome, self.status or -1, self.site.seconds() - self.tried_at)

    def let_go(self, outcome: Outcome) -> None:
        """Whatever is under way upstream ends."""
        ticket, self.ticket = self.ticket, None
        if ticket is not None:
            self.upstreams.pool.queue.leave(ticket)
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.cancel()
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.cut()
        self.release(outcome)

    # -- deadlines of the whole exchange, and of one try until its answer begins

    def limit(self, timeout: float) -> None:
        """From now on the whole exchange may take so many seconds."""
        deadlines = self.site.deadlines
        self._due = deadlines.after(timeout)
        deadlines.watch(self, timeout)

    def _limit_try(self, patience: float | None) -> None:
        """This try may take so long until its answer's head; None: nothing is being tried."""
        deadlines = self.site.deadlines
        self._try_due = deadlines.after(patience) if patience is not None else NEVER
        self._watch_nearest()

    def answer_began(self) -> None:
        """No try is limited any more; the exchange may be."""
        self._try_due = NEVER
        self._watch_nearest()

    def _watch_nearest(self) -> None:
        self.deadline = deadline = min(self._due, self._try_due)
        if deadline < self.slot:
            self.site.deadlines.insert(self)

    def expired(self, now: float) -> None:
        """A deadline of this exchange has come."""
        if self._due <= now:
            if self.upstream is not None and self.request_ended and not self.responded and not self.is_hurried:
                self.let_go(Outcome.TIMEOUT)  # it is the backend that all have waited for
            self.refuse(504, "deadline")
        elif self._try_due <= now and self.ticket is not None:
            if not self._goes_elsewhere():
                self.placed_at = self.site.seconds()
                self.refuse(503, "queue_timeout")
        elif self._try_due <= now:
            self._try_due = NEVER
            self._watch_nearest()
            pending, self.pending = self.pending, None
            if pending is not None:
                pending.cancel()
            upstream, self.upstream = self.upstream, None
            if upstream is not None:
                upstream.cut()
            self.was_kept_connection = False
            self.try_failed(Outcome.TIMEOUT, "per_try_timeout", sent=upstream is not None)
        else:
            self._watch_nearest()

    def refuse(self, status: int, reason: str, detail: str = "", retry_after: int = 0) -> None:
        """An answer of ours instead of a backend's."""
        raise NotImplementedError
