"""What must hold after a storm: the clients' books, the balancer's and the backends' say the same.

Promises: pure functions over what was written down; each gives problems in words, none where all is well. The laws:

    answers     Each request that was sent is answered as its line says, or was cut with a reason; nobody got bytes of
                another's.
    lines       One for each request that was seen, none for any other.
    counts      Metrics grew by what the lines say: codes, terminations, connections, failures by backend, retries.
    backends    Nobody has seen another's body; what was answered was asked; a POST that was seen was sent to nobody else.

Called by storm.py when nothing is under way any more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from tests.chaos.arena import ASKED, POOLS, Metrics
from tests.chaos.books import Asked

Line = Mapping[str, Any]

#: Reasons that are failures of backends, as they are counted.
FAILURES: Final = (
    "connect_failed",
    "connect_timeout",
    "tls_verify",
    "upstream_reset",
    "upstream_timeout",
    "upstream_protocol",
)
HTTP: Final = ("web", "secure")


def judge_answers(asked: Iterable[Asked], lines: Iterable[Line], nonsense: int) -> Iterator[str]:
    """The clients' books against the access log."""
    by_id: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_id[line["client"] if line["protocol"] == "tcp" else line["id"]].append(line)
    for each in asked:
        found = by_id.pop(each.address or each.token, [])
        if each.wrong:
            yield str(each)
        if len(found) > 1:
            yield f"{each}: {len(found)} lines {found}"
        elif not found and not _may_be_unseen(each):
            yield f"{each}: no line"
        elif found:
            is_of_bytes = each.road == "tcp" or each.status == 101
            word = _disagreement_of_bytes(each, found[0]) if is_of_bytes else _disagreement(each, found[0])
            if word:
                yield f"{each}: {word}, where the log has {dict(found[0])}"
    strays = [line for several in by_id.values() for line in several]
    bad = [line for line in strays if line["reason"] == "bad_request"]
    for line in strays:
        if line["reason"] != "bad_request" and not _is_silent(line):
            yield f"a line of nobody: {dict(line)}"
    if len(bad) < nonsense:
        yield f"{nonsense} times nonsense was answered, with {len(bad)} lines"


def _is_silent(line: Line) -> bool:
    """A request whose head never came whole has no id of ours."""
    return line.get("path") is None and line["reason"] in ("client_closed", "client_timeout")


def _may_be_unseen(each: Asked) -> bool:
    """It need not have come to the balancer's notice at all."""
    if each.left in ("head", "body", "waiting"):
        return True  # a client that goes takes with it what nobody has read
    return each.is_behind or each.ended in ("goaway", "refused")


def _disagreement(each: Asked, line: Line) -> str:
    """Why this line is not that request's, in words."""
    reason = line["reason"]
    if each.is_whole:
        if line["status"] != each.status:
            return "another status"
        if each.served_by and reason != "ok" and not (each.status == 413 and reason == "client_closed"):
            return f"a whole answer, and {reason}"
        if each.served_by not in ("", "?", line.get("backend")):
            return "another backend"
        if each.reason and each.reason != reason:
            return "another reason"
        if not each.served_by and reason == "ok":
            return "an error of the balancer's, and ok"
        if each.wire and each.wire != line["bytes_out"]:
            return f"{each.wire} bytes came"
        return ""
    if each.left or not each.is_sent:
        return ""  # what of it has come through is a matter of moments
    return "cut, and ok" if reason == "ok" else ""


def _disagreement_of_bytes(each: Asked, line: Line) -> str:
    # `half_close` may be over before a backend that stands still has seen the end.
    if each.is_whole and each.ended == "eof" and line["reason"] not in ("ok", "idle_timeout"):
        return "whole, and not ok"
    if not each.left and each.ended == "reset" and line["reason"] == "ok":
        return "reset, and ok"
    return ""


def judge_backends(asked: Iterable[Asked], books: Mapping[str, Iterable[tuple[str, str, str, str]]]) -> Iterator[str]:
    """The clients' books against those of the backends."""
    seen: dict[str, list[str]] = defaultdict(list)
    refused = Counter[str]()
    for name, notes in books.items():
        for road, token, method, word in notes:
            if word == "bad":
                yield f"{name} got bytes of another: {road} {token} {method}"
            elif word == "head" and token != "w":
                seen[token].append(name)
            elif word == "refused":
                refused[token] += 1
    for each in asked:
        places = seen.get(each.token, [])
        if each.served_by not in ("", "?", *places):
            yield f"{each}: was seen by {places}"
        if each.method == "POST" and each.route != "copied" and len(places) - refused[each.token] > 1:
            yield f"{each}: a POST was seen by {places}"


class Grown:
    """By how much metrics have grown."""

    def __init__(self, before: Metrics, after: Metrics) -> None:
        self.before, self.after = before, after

    def by(self, name: str, *labels: str, **fixed: str) -> Counter[tuple[str, ...]]:
        """Sums by these labels, of the samples with those that are fixed; what has not grown is not there."""
        found: Counter[tuple[str, ...]] = Counter()
        for (metric, pairs), value in self.after.items():
            named = dict(pairs)
            if metric == name and fixed.items() <= named.items():
                found[tuple(named[label] for label in labels)] += int(value - self.before.get((metric, pairs), 0))
        return +found

    def gauges(self, name: str, label: str, among: Iterable[str]) -> dict[str, float]:
        """Those that are not zero now, by one label."""
        found: dict[str, float] = defaultdict(float)
        for (metric, pairs), value in self.after.items():
            if metric == name:
                found[dict(pairs).get(label, "")] += value
        return {key: value for key, value in found.items() if value and key in among}


def judge_counts(grown: Grown, lines: list[Line], connects: Counter[str], copies: bool = True) -> Iterator[str]:
    """The metrics against the access log and what was connected."""
    http = [line for line in lines if line["listener"] in HTTP and line["protocol"] != "tcp"]
    codes = Counter((line["listener"], str(line["status"])) for line in http)
    for listener in HTTP:
        counted = grown.by("lbsvc_http_requests_total", "listener", "code", listener=listener)
        logged = Counter({key: n for key, n in codes.items() if key[0] == listener})
        if counted != logged:
            yield f"codes: counted {dict(counted - logged)} more, logged {dict(logged - counted)} more"
    for listener in ASKED:
        ended = grown.by("lbsvc_terminations_total", "reason", listener=listener)
        logged = Counter((line["reason"],) for line in lines if line["listener"] == listener)
        if ended != logged:
            yield f"terminations of {listener}: counted {dict(ended - logged)} more, logged {dict(logged - ended)} more"
        accepted = grown.by("lbsvc_listener_connections_total", "listener", listener=listener)[(listener,)]
        if accepted != connects[listener]:
            yield f"connections of {listener}: {accepted} were accepted, {connects[listener]} made"
        for direction, key in (("in", "bytes_in"), ("out", "bytes_out")):
            total = grown.by("lbsvc_bytes_total", "direction", listener=listener, direction=direction)[(direction,)]
            parts = sum(line[key] for line in lines if line["listener"] == listener)
            if listener == "raw" and parts != total:
                yield f"bytes {direction} of {listener}: {total} counted, {parts} logged"
    yield from _judge_tries(grown, lines)
    if dropped := grown.by("lbsvc_log_dropped_total", "log"):
        yield f"log lines were dropped: {dict(dropped)}"


def _judge_tries(grown: Grown, lines: list[Line]) -> Iterator[str]:
    """Retries by pool, and failures by backend, from the tries of each line."""
    failed: Counter[tuple[str, ...]] = Counter()
    unclear: Counter[tuple[str, ...]] = Counter()
    retries, more = Counter[str](), Counter[str]()
    for line in lines:
        pool = line.get("pool")
        if not line.get("attempts") or pool is None:
            continue
        tries = line.get("tries") or [{"backend": line.get("backend", ""), "reason": line["reason"]}]
        retries[pool] += line["attempts"] - 1
        # The last try may be a retry that found nobody, or was still waiting for its turn.
        more[pool] += line["reason"] not in ("ok", "retry_budget", *FAILURES)
        for each in tries:
            if each["reason"] in FAILURES:
                failed[pool, each["backend"], each["reason"]] += 1
        if line["reason"] == "deadline":  # whose fault that was is not in the line
            unclear[pool, line.get("backend", ""), "upstream_timeout"] += 1
    for pool in POOLS:
        counted = grown.by("lbsvc_retries_total", "pool", pool=pool)
        if not retries[pool] <= counted[(pool,)] <= retries[pool] + more[pool]:
            yield f"retries of {pool}: {counted[(pool,)]} counted, {retries[pool]} logged, {more[pool]} unclear"
        failures = grown.by("lbsvc_backend_failures_total", "pool", "backend", "reason", pool=pool)
        for key in failures.keys() | {key for key in failed if key[0] == pool}:
            if key[1] != "guest" and not failed[key] <= failures[key] <= failed[key] + unclear[key]:
                yield f"failures of {key}: {failures[key]} counted, {failed[key]} logged, {unclear[key]} unclear"


def judge_rest(grown: Grown) -> Iterator[str]:
    """Nothing is under way any more."""
    for name, label, among in (
        ("lbsvc_listener_connections", "listener", (*ASKED, "wrk")),
        ("lbsvc_http_requests_in_flight", "listener", (*ASKED, "wrk")),
        ("lbsvc_backend_active", "pool", (*POOLS, "load")),
        ("lbsvc_backend_connections", "pool", ("web", "calls", "load")),
        ("lbsvc_queue_length", "pool", (*POOLS, "load")),
    ):
        if left := grown.gauges(name, label, among):
            yield f"{name} is not zero: {left}"
