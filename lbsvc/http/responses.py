"""The answers that we make ourselves: errors, `respond` and `redirect` routes (contract.md, "Behaviour").

Promises: an error body is small and carries the reason word and the request id, as text or, where the client prefers it,
as JSON; nothing of the peer's bytes and nothing of our inside is in it. Called by the exchange and the server.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Final

from lbsvc.config.schema import Redirect, Respond
from lbsvc.core.paths import normal_path
from lbsvc.http.messages import RequestHead, ResponseHead, Section

#: Reason phrases by the IANA registry, in the words of RFC 9110 where Python's are older.
PHRASES: Final[dict[int, bytes]] = {status.value: status.phrase.encode() for status in HTTPStatus} | {
    413: b"Content Too Large",
    414: b"URI Too Long",
    418: b"I'm a teapot",
    422: b"Unprocessable Content",
}

#: What a person reads beside the reason word.
_MESSAGES: Final[dict[str, str]] = {
    "no_route": "No route matches this request.",
    "no_backend": "No backend is available for this request.",
    "connect_failed": "The backend could not be reached.",
    "connect_timeout": "The backend did not accept a connection in time.",
    "upstream_reset": "The backend closed the connection before it had answered.",
    "upstream_timeout": "The backend did not answer in time.",
    "upstream_protocol": "The backend answered with something that is not HTTP.",
    "retry_budget": "The backend failed, and too many requests are being tried again already.",
    "client_timeout": "The request did not arrive in time.",
    "bad_request": "The request breaks the rules of HTTP.",
    "too_large": "The request is larger than this server accepts.",
    "overload": "This server has no room for the request now.",
    "draining": "This server is shutting down.",
}


def make_head(status: int, fields: tuple[tuple[str, str], ...] | list[tuple[str, str]], length: int) -> ResponseHead:
    """A head of our own; no Content-Length where the status forbids a body."""
    section = Section()
    section.body = length
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    if status >= 200 and status != 204 and status != 304:
        lines += f"Content-Length: {length}\r\n"
    section.wire = lines.encode("latin-1", "replace")
    section.has_date = any(name.lower() == "date" for name, _ in fields)
    return ResponseHead(status, PHRASES.get(status, b"Unknown"), 1, section)


def fixed(respond: Respond) -> tuple[ResponseHead, bytes]:
    """What a `respond` route answers; made once, when the routing table is."""
    body = respond.body.encode()
    if respond.status in (204, 304):
        body = b""
    fields = list(respond.headers)
    if body and not any(name.lower() == "content-type" for name, _ in fields):
        fields.append(("Content-Type", "text/plain; charset=utf-8"))
    return make_head(respond.status, fields, len(body)), body


def redirect(rule: Redirect, prefix: str | None, target: bytes) -> tuple[ResponseHead, bytes]:
    """A redirection; `*` at the end of `to` stands for what the route's prefix left of the path, query included.

    `prefix` is the route's path pattern without its `*`. The target has been checked: visible ASCII only. The path goes on
    as it came; where it was matched in its normal form only, in that. No slash or backslash goes first, since
    `https://x/` + `/evil.example` reads like another host in some places.
    """
    to = rule.to
    if to.endswith("*"):
        path, mark, query = target.partition(b"?")
        start = (prefix or "/").encode()
        if not path.startswith(start):
            path = normal_path(path) if path.startswith(b"/") else b"/"
        rest = path[len(start) :] if path.startswith(start) else b""
        to = to[:-1] + (rest.lstrip(b"/\\") + mark + query).decode("ascii")
    return make_head(rule.status, [("Location", to)], 0), b""


_WEIGHT: Final = re.compile(rb"0(\.[0-9]{0,3})?|1(\.0{0,3})?").fullmatch

#: Media types that an Accept field may name -> which of our two forms they mean.
_FORMS: Final = {
    b"application/json": ("json",),
    b"application/problem+json": ("json",),
    b"application/*": ("json",),
    b"text/plain": ("text",),
    b"text/html": ("text",),
    b"text/*": ("text",),
    b"*/*": ("json", "text"),
}


def prefers_json(accept: bytes | None) -> bool:
    """Whether an Accept field ranks JSON above plain text (RFC 9110, 12.5.1).

    At equal quality one that is named goes before one that a wildcard covers, and text before JSON.
    """
    if accept is None or b"json" not in accept.lower():
        return False
    best = {"json": (0.0, False), "text": (0.0, False)}
    for part in accept[:1024].lower().split(b","):
        media, *parameters = [p.strip() for p in part.split(b";")]
        rank = (_quality(parameters), not media.endswith(b"*"))
        for form in _FORMS.get(media, ()):
            best[form] = max(best[form], rank)
    return best["json"][0] > 0 and best["json"] > best["text"]


def _quality(parameters: list[bytes]) -> float:
    for parameter in parameters:
        if parameter.startswith(b"q="):
            return float(parameter[2:]) if _WEIGHT(parameter[2:]) else 0.0
    return 1.0


def error(
    status: int, reason: str, request_id: bytes, head: RequestHead | None, detail: str = "", retry_after: bool = False
) -> tuple[ResponseHead, bytes]:
    """An error of ours, in the contract's two forms."""
    message = _MESSAGES.get(reason, "The request was refused.")
    if detail:
        message = f"{message[:-1]}: {detail}."
    identity = request_id.decode("ascii")
    if prefers_json(head.section.get(b"accept") if head is not None else None):
        kind = "application/json"
        text = json.dumps({"status": status, "reason": reason, "request_id": identity, "message": message}) + "\n"
    else:
        kind = "text/plain; charset=utf-8"
        text = f"{status} {reason} {identity}\n{message}\n"
    body = text.encode()
    fields = [("Content-Type", kind), ("Cache-Control", "no-store")]
    if retry_after or status == 503:
        fields.append(("Retry-After", "1"))
    return make_head(status, fields, len(body)), body
