"""The answers that we make ourselves: errors, `respond` and `redirect` routes (contract.md, "Behaviour").

Promises: an error body is small and carries the reason word and the request id, as text or, where the client prefers it,
as JSON; nothing of the peer's bytes and nothing of our inside is in it. Called by the exchange and the server.
"""

from __future__ import annotations

import json
from typing import Final

from lbsvc.config.schema import Redirect, Respond
from lbsvc.http.messages import RequestHead, ResponseHead, Section

PHRASES: Final[dict[int, bytes]] = {
    200: b"OK",
    201: b"Created",
    202: b"Accepted",
    204: b"No Content",
    301: b"Moved Permanently",
    302: b"Found",
    303: b"See Other",
    304: b"Not Modified",
    307: b"Temporary Redirect",
    308: b"Permanent Redirect",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    410: b"Gone",
    413: b"Content Too Large",
    414: b"URI Too Long",
    417: b"Expectation Failed",
    418: b"I'm a teapot",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
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

    `prefix` is the route's path pattern without its `*`. The target has been checked: visible ASCII only.
    """
    to = rule.to
    if to.endswith("*"):
        path, mark, query = target.decode("ascii").partition("?")
        rest = path[len(prefix) :] if prefix is not None and path.startswith(prefix) else path.lstrip("/")
        to = to[:-1] + rest.lstrip("/") + mark + query
    return make_head(rule.status, [("Location", to)], 0), b""


def prefers_json(accept: bytes | None) -> bool:
    """Whether an Accept field ranks JSON above plain text (RFC 9110, 12.5.1; a tie goes to text)."""
    if accept is None or b"json" not in accept.lower():
        return False
    best = {"json": 0.0, "text": 0.0}
    for part in accept[:1024].lower().split(b","):
        media, *parameters = [p.strip() for p in part.split(b";")]
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith(b"q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if media in (b"application/json", b"application/problem+json"):
            best["json"] = max(best["json"], quality)
        elif media in (b"text/plain", b"text/html", b"text/*"):
            best["text"] = max(best["text"], quality)
    return best["json"] > best["text"]


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
