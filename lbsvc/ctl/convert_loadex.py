"""Loadex's command line: `-port 8080 -backends http://a:1,http://b:2 -algo rr`, perhaps with LOG_LEVEL before it.

Promises: as convert.py says. What stands before the first of its flags (the program, `docker compose run …`) does not
count; a flag that Loadex does not have is a mistake, as it was there. Called by convert.py.
"""

from __future__ import annotations

import re
import shlex
from typing import Any, Final

from lbsvc.config.document import Entry, Mapping, Scalar
from lbsvc.ctl.convert_new import ADMIN, New, OldBackend, algorithm, backends, bind, url_backend
from lbsvc.ctl.convert_old import Old, Report

_FLAGS: Final = ("port", "backends", "algo")
_FLAG: Final = re.compile(r"--?([a-z]+)(?:=(.*))?", re.DOTALL)
_LEVEL: Final = re.compile(r"LOG_LEVEL=(\w+)")
_LEVELS: Final = {"debug": "debug", "info": "info", "warn": "warn", "warning": "warn", "error": "error"}
_WORDS: Final = {
    "roundrobin": "round_robin",
    "rr": "round_robin",
    "weightedroundrobin": "round_robin",
    "wrr": "round_robin",
    "leastconnection": "least_connections",
    "lc": "least_connections",
    "iphash": "ip_hash",
    "ip": "ip_hash",
    "urlhash": "ip_hash",
}
#: A text that is such a command line.
LOOKS: Final = re.compile(r"(?:^|\s)--?backends(?:[=\s]|$)")


def convert(text: str, report: Report) -> New:
    """The same in our words."""
    flags, level = _read(text, report)
    report.check()
    new = New()
    new.listener["bind"] = bind(flags, "-port", "", "8080")
    new.listener["protocol"] = "http"
    word, found = algorithm(flags, "-algo", _WORDS, "roundrobin")
    if word == "urlhash":
        flags.lose("-algo", "urlhash was another name of iphash; consistent_hash with hash_key: path goes by the URL")
    is_weighted = word in ("weightedroundrobin", "wrr")
    read: list[OldBackend] = []
    for i, each in enumerate((flags.text("-backends") or "").split(",")):
        if each.strip():
            address = url_backend(report, each, (0, 0), f"-backends[{i}]")
            weight = (2 if i % 2 == 0 else 1) if is_weighted else None
            read += [OldBackend(address, None, weight)] if address else []
    if is_weighted:
        flags.lose(
            "-algo", "Loadex gave its servers the weights 2, 1, 2, 1, … in turn; they are written out: change them"
        )
    new.pools["main"] = {
        "algorithm": found,
        "backends": backends(flags, "-backends", read, weights=is_weighted),
        "health_check": {"path": "/health", "interval": "5s", "timeout": "2s", "expect_status": 200},
    }
    new.listener["pool"] = "main"
    if level is not None:
        new.rest["log"] = {"level": level}
    where = f"are at http://{ADMIN} and want a token from elsewhere; Loadex had them on its own port, for everybody"
    report.lose(0, 0, "", f"/api/health, /api/add, /api/info, /metrics and /dashboard {where}")
    return new


def _read(text: str, report: Report) -> tuple[Old, str | None]:
    """The flags as a section of their own, and the level of the log."""
    try:
        words = shlex.split(text.replace("\\\r\n", " ").replace("\\\n", " "), comments=True)
    except ValueError as error:
        report.stop(f"is no command line: {error}")
    level: str | None = None
    found: dict[str, str] = {}
    waiting: str | None = None
    has_begun = False
    for word in words:
        if waiting is not None:
            found[waiting], waiting = word, None
            continue
        flag = _FLAG.fullmatch(word)
        if flag is not None and flag[1] in _FLAGS:
            has_begun = True
            if flag[2] is None:
                waiting = flag[1]
            else:
                found[flag[1]] = flag[2]
        elif has_begun:
            report.wrong(0, 0, word, "is no flag of Loadex: it has -port, -backends and -algo")
        elif (said := _LEVEL.search(word)) is not None:
            level = _LEVELS.get(said[1].lower())
            if level is None:
                report.lose(0, 0, "LOG_LEVEL", f"{said[1]} is not known and is left out")
    if waiting is not None:
        report.wrong(0, 0, f"-{waiting}", "needs a value")
    if not has_begun:
        report.stop("holds no flag of Loadex: -port, -backends or -algo")
    return Old(report, _section(found)), level


def _section(found: dict[str, str]) -> Mapping:
    entries: dict[str, Any] = {f"-{key}": Entry(f"-{key}", Scalar(value, value)) for key, value in found.items()}
    return Mapping(entries)
