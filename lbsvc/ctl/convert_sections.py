"""The sections that several of the smaller balancers write alike: health checks, breaker, stickiness, retries, TLS.

Promises: each takes its section of the old file wholly (what it does not know is said to be left out) and gives the keys of
ours, {} or None where there is nothing to write. Called by the converters beside it.
"""

from __future__ import annotations

from typing import Any, Final

from lbsvc.ctl.convert_old import Old

#: Go's names of the cipher suites that can be chosen there, and OpenSSL's.
CIPHERS: Final = {
    f"TLS_ECDHE_{key}_WITH_{old}": f"ECDHE-{key}-{new}"
    for key in ("ECDSA", "RSA")
    for old, new in (
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305", "CHACHA20-POLY1305"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
    )
}
_VERSIONS: Final = {"TLS10": "1.0", "TLS11": "1.1", "TLS12": "1.2", "TLS13": "1.3"}


def health_check(old: Old, **defaults: Any) -> dict[str, Any] | str:
    """`{interval, timeout, path, failure_threshold}`, or off; `defaults` hold where a key is not there."""
    found = dict(defaults)
    enabled = old.yes("enabled")
    path = old.text("path")
    if path is not None:
        found["path"] = path if path.startswith("/") else f"/{path}"
    found["interval"] = old.duration("interval") or found.get("interval")
    found["timeout"] = old.duration("timeout") or found.get("timeout")
    fall = old.whole("failure_threshold", 0, 1000)
    if fall:
        found["fall"] = fall
    elif fall == 0:
        old.lose("failure_threshold", "is 0: the default holds, 3")
    old.close()
    if enabled is False:
        return "off"
    return {key: value for key, value in found.items() if value is not None}


def circuit_breaker(old: Old) -> dict[str, Any] | None:
    """`{failure_threshold, reset_timeout, half_open_limit}`; None where there is no such section."""
    if not old.node.entries:
        return None
    found: dict[str, Any] = {}
    enabled = old.yes("enabled")
    for key, ours in (("failure_threshold", "failure_threshold"), ("half_open_limit", "half_open_requests")):
        count = old.whole(key, 0, 1_000_000)
        if count:
            found[ours] = count
        elif count == 0:
            old.lose(key, "is 0, which opened at the first failure or never closed: the default holds")
    reset = old.duration("reset_timeout")
    if reset is not None:
        found["reset_timeout"] = reset
    old.close()
    if enabled is False:
        return None
    defaults = {"failure_threshold": 5, "reset_timeout": "30s", "half_open_requests": 3}
    return {key: found.get(key, value) for key, value in defaults.items()}


def sticky(old: Old) -> dict[str, Any] | None:
    """`{enabled, type, cookie_name, timeout | ttl, max_sessions, cleanup_interval}`; None where it is off."""
    enabled, kind = old.yes("enabled"), (old.text("type") or "cookie").lower()
    cookie = old.text("cookie_name")
    ttl, timeout = old.duration("ttl"), old.duration("timeout")
    most, cleanup = old.whole("max_sessions"), old.duration("cleanup_interval")
    old.close()
    if not enabled:
        return None
    if kind not in ("cookie", "ip"):
        old.wrong("type", "must be cookie or ip")
        return None
    found: dict[str, Any] = {"type": kind}
    if kind == "cookie":
        found["cookie"] = cookie or "lb_session"
    elif cookie is not None:
        old.lose("cookie_name", "means nothing where the type is ip and is left out")
    found["ttl"] = ttl or timeout or "24h"
    if most is not None:
        old.lose(
            "max_sessions", "is left out: cookies need no table here, and the table of addresses has its own bound"
        )
    if cleanup is not None:
        old.lose("cleanup_interval", "is left out: nothing has to be cleaned up")
    return found


def retry(old: Old) -> dict[str, Any] | None:
    """`{max_retries, initial_interval, max_interval, multiplier, randomization}`; None where there is no such section."""
    if not old.node.entries:
        return None
    retries = old.whole("max_retries", 0, 99)
    initial, longest = old.duration("initial_interval"), old.duration("max_interval")
    multiplier, randomization = old.number("multiplier"), old.number("randomization")
    old.close()
    found: dict[str, Any] = {"attempts": (3 if retries is None else retries) + 1}
    found["backoff"] = {"initial": initial or "100ms", "max": longest or "1s"}
    if multiplier not in (None, 2.0):
        old.lose("multiplier", "is left out: pauses between tries are doubled each time")
    if randomization is not None:
        old.lose("randomization", "is left out: pauses always vary, by a share that cannot be set")
    return found


def tls(old: Old, cert: str | None, key: str | None) -> dict[str, Any] | None:
    """`{enabled, cert_file, key_file, …}`, or files that stand elsewhere; None where it is off."""
    enabled = old.yes("enabled")
    cert, key = old.text("cert_file") or cert, old.text("key_file") or key
    interval = old.duration("reload_interval")
    least, most = _version(old, "min_version"), _version(old, "max_version")
    suites = old.texts("cipher_suites")
    old.close()
    if enabled is False or (enabled is None and cert is None and key is None):
        return None
    if cert is None or key is None:
        old.wrong("cert_file" if cert is None else "key_file", "is missing: TLS needs both cert_file and key_file")
        return None
    found: dict[str, Any] = {"certificates": [{"cert": cert, "key": key}]}
    if least in ("1.0", "1.1"):
        old.lose("min_version", f"{least} is not spoken here: 1.2 is the least")
    elif least is not None:
        found["min_version"] = least
    if most is not None and most != "1.3":
        old.lose("max_version", "is left out: TLS 1.3 is always offered")
    known = list(dict.fromkeys(CIPHERS[suite] for suite in suites if suite in CIPHERS))
    for suite in suites:
        if suite not in CIPHERS:
            old.lose("cipher_suites", f"{suite} is not known and is left out")
    if known and least != "1.3":
        found["ciphers"] = ":".join(known)
    if interval is not None:
        found["reload_interval"] = interval
    return found


def _version(old: Old, key: str) -> str | None:
    written = old.text(key)
    if written is None:
        return None
    word = written.upper().replace("V", "").replace(".", "").replace("_", "").replace(" ", "")
    found = _VERSIONS.get(word if word.startswith("TLS") else f"TLS{word}")
    if found is None:
        old.wrong(key, "must be TLS12 or TLS13")
    return found


def say_where(old: Old, files: dict[str, Any] | None) -> None:
    """Files were relative to where the old one was started."""
    for pair in (files or {}).get("certificates", ()):
        for name in (pair["cert"], pair["key"]):
            if not name.startswith("/"):
                line, column = old.node.line, old.node.column
                message = f"{name} is looked for beside the new file, and was where the old program was started"
                old.report.lose(line, column, old.path, message)
