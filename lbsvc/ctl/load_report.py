"""What a load run came to, for people and as JSON.

Promises: both are pure functions of the tally; the keys of the JSON stay (times are seconds, counts are requests); the text
is plain, without colours, and fits 80 columns where names are short. Called by request.py.
"""

from __future__ import annotations

from math import log
from typing import Any, Final

from lbsvc.http.load import Plan, Tally

PERCENTILES: Final = (50, 90, 95, 99)
_BAR: Final = 40
_UNITS: Final = ("KiB", "MiB", "GiB", "TiB")


def as_json(tally: Tally, plan: Plan, url: str, is_interrupted: bool) -> dict[str, Any]:
    """One object."""
    latencies = tally.latencies
    return {
        "url": url,
        "concurrency": plan.clients,
        "rate": plan.rate,
        "interrupted": is_interrupted,
        "elapsed": round(tally.elapsed, 6),
        "requests": tally.done,
        "answered": tally.answered,
        "failed": tally.failed,
        "requests_per_second": round(_per_second(tally), 3),
        "bytes": tally.received,
        "connections": tally.connections,
        "resent": tally.resent,
        "latency": {
            "min": round(latencies.least, 6) if latencies.count else None,
            "mean": round(latencies.mean, 6) if latencies.count else None,
            **{f"p{p}": round(latencies.percentile(p), 6) if latencies.count else None for p in PERCENTILES},
            "max": round(latencies.most, 6) if latencies.count else None,
        },
        "histogram": [{"le": round(end, 6), "count": count} for end, count in latencies.rows()],
        "status": {str(status): count for status, count in sorted(tally.statuses.items())},
        "backends": {name: count for name, count in _backends(tally) if name is not None},
        "errors": dict(tally.errors.most_common()),
    }


def as_text(tally: Tally, plan: Plan, url: str, is_interrupted: bool) -> str:
    """Several lines."""
    cut = " (interrupted)" if is_interrupted else ""
    lines = [
        f"{tally.done} requests to {url} in {tally.elapsed:.2f} s{cut}: "
        f"{_per_second(tally):.1f} a second, {tally.failed} failed",
        f"{plan.clients} at a time, {_counted(tally.connections, 'connection')}, {show_bytes(tally.received)} of bodies",
    ]
    if tally.resent:
        lines.append(f"{tally.resent} sent again: the server had closed the kept connection")
    latencies = tally.latencies
    if latencies.count:
        found = [(f"p{p}", latencies.percentile(p)) for p in PERCENTILES] + [("max", latencies.most)]
        lines += ["", "latency   " + "   ".join(f"{name} {show_time(value)}" for name, value in found)]
        if plan.rate is not None:
            lines.append("          each from when it was due")
        lines += ["", *_histogram(latencies.rows())]
    statuses = sorted(tally.statuses.items())
    lines += _table("status", [(str(status), count) for status, count in statuses], tally.done)
    backends = [(name or "(none named)", count) for name, count in _backends(tally)]
    if any(name is not None for name in tally.backends):
        lines += _table("backend", backends, tally.answered)
    lines += _table("error", tally.errors.most_common(), tally.done)
    return "\n".join(lines) + "\n"


def show_time(seconds: float) -> str:
    """Three digits: 850 us, 1.23 ms, 2.5 s."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def show_bytes(count: float) -> str:
    """512 B, 1.5 KiB."""
    if count < 1024:
        return f"{count:.0f} B"
    power = min(int(log(count, 1024)), len(_UNITS))
    return f"{count / 1024**power:.1f} {_UNITS[power - 1]}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _per_second(tally: Tally) -> float:
    return tally.done / tally.elapsed if tally.elapsed > 0 else 0.0


def _backends(tally: Tally) -> list[tuple[str | None, int]]:
    return sorted(tally.backends.items(), key=lambda pair: (pair[0] is None, pair[0] or ""))


def _histogram(rows: list[tuple[float, int]]) -> list[str]:
    most = max(count for _, count in rows)
    return [f"{'<= ' + show_time(end):>12}  {'#' * -(-count * _BAR // most):{_BAR}}  {count}" for end, count in rows]


def _table(title: str, rows: list[tuple[str, int]], total: int) -> list[str]:
    if not rows:
        return []
    width = max(len(name) for name, _ in rows)
    return [
        "",
        *(
            f"{title if i == 0 else '':8}  {name:{width}}  {count:>8}  {100 * count / total:5.1f} %"
            for i, (name, count) in enumerate(rows)
        ),
    ]
