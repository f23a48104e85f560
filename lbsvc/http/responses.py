"""The answers that we make ourselves: errors, `respond` and `redirect` routes (contract.md, "Behaviour").

Promises: an error body is small and carries the reason word and the request id, as text or, where the client prefers it,
as JSON; nothing of the peer's bytes and nothing of our inside is in it. What a client sent comes back in a redirection
only, and there it is no more than a path and a query. Called by the exchange and the server.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Final

from lbsvc.config.schema import Redirect, Respond
from lbsvc.core.paths import normal_path
from lbsvc.errors import ProtocolViolation
from lbsvc.http.edits import without_prefix
from lbsvc.http.fields import DATE, PLAIN
from lbsvc.http.messages import Field, RequestHead, ResponseHead, Section

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
    "tls_verify": "The backend could not prove who it is.",
    "upstream_protocol": "The backend answered with something that cannot be passed on.",
    "circuit_open": "The backend has failed too often, and is left alone for a while.",
    "queue_full": "All backends are busy, and too many requests are waiting already.",
    "queue_timeout": "All backends have been busy for too long.",
    "retry_budget": "The backend failed, and too many requests are being tried again already.",
    "client_timeout": "The request did not arrive in time.",
    "bad_request": "The request breaks the rules of HTTP.",
    "too_large": "The request is larger than this server accepts.",
    "denied": "This request is not allowed here.",
    "rate_limited": "There were too many requests; try again later.",
    "fault": "This request was made to fail, as the configuration asks for some.",
    "deadline": "The request was not answered in the time that it may take.",
    "overload": "This server has no room for the request now.",
    "draining": "This server is shutting down.",
}


def make_head(status: int, fields: tuple[tuple[str, str], ...] | list[tuple[str, str]], length: int) -> ResponseHead:
    """A head of our own; no Content-Length where the status forbids a body."""
    section = Section()
    section.body = length
    section.fields = [_field(name, value) for name, value in fields]
    section.wire = b"".join([field[2] for field in section.fields])
    if status >= 200 and status != 204 and status != 304:
        section.wire += b"Content-Length: %d\r\n" % length
    section.has_date = any(field[3] == DATE for field in section.fields)
    return ResponseHead(status, PHRASES.get(status, b"Unknown"), 1, section)


def _field(name: str, value: str) -> Field:
    written, content = name.encode("latin-1", "replace"), value.encode("latin-1", "replace")
    lower = written.lower()
    return lower, content, b"%b: %b\r\n" % (written, content), DATE if lower == b"date" else PLAIN


def fixed(respond: Respond) -> tuple[ResponseHead, bytes]:
    """What a `respond` route answers; made once, when the routing table is."""
    body = respond.body.encode()
    if respond.status in (204, 304):
        body = b""
    fields = list(respond.headers)
    if body and not any(name.lower() == "content-type" for name, _ in fields):
        fields.append(("Content-Type", "text/plain; charset=utf-8"))
    return make_head(respond.status, fields, len(body)), body


#: A redirection's target in two parts: scheme and host, if it has them, and what is behind. No word but {scheme} and {host}
#: finds a place in the first: whatever else a client wrote comes behind a slash.
_TARGET: Final = re.compile(r"((?:(?:https?|\{scheme\}):)?//(?:[^/?#{*\\]|\{host\})+)?(.*)", re.DOTALL)
#: What is filled in. A path brings its own slash: one is enough.
_WORD: Final = re.compile(r"/?\{(path|uri)\}|\{(host|query|scheme)\}|\*\Z")

#: A path that begins with a dot segment goes on without it: `/.//evil.example` is `//evil.example` to some.
_DOTTED: Final = re.compile(rb"/(?:\.|%2e){1,2}(?:/|\Z)", re.IGNORECASE).match


def redirect(rule: Redirect, prefix: str | None, head: RequestHead, scheme: bytes) -> tuple[ResponseHead, bytes]:
    """A redirection, whose target `to` may be a template.

    {scheme} stands for `scheme`, {host} for the request's host without a port, {path} for its path, {query} for its query
    without the mark, {uri} for path, mark and query; `*` at the end for what the route's prefix left of the path, query
    included. `prefix` is the route's path pattern without its `*`. All go on as they came; a path that was only matched in
    its normal form, in that. What was asked for leads to no other host: {host} has been checked to be one and is all that
    a client can put in its place, and no path begins with two slashes or a backslash.

    Raises ProtocolViolation (400) where {host} is needed and the request, of HTTP/1.0, names none.
    """
    path, mark, query = head.target.partition(b"?")

    def fill(word: re.Match[str]) -> str:
        if word[1]:
            return (_carried(path, b"") + (mark + query if word[1] == "uri" else b"")).decode("ascii")
        if word[2]:
            found = query if word[2] == "query" else scheme if word[2] == "scheme" else _host_of(head)
            return found.decode("ascii")
        rest = _carried(path, (prefix or "").encode().rstrip(b"/")).removeprefix(b"/")
        return (rest + mark + query).decode("ascii")

    parts = _TARGET.fullmatch(rule.to)
    assert parts is not None  # the second takes anything
    origin, to = (_WORD.sub(fill, part or "") for part in parts.groups())
    if not origin:
        to = "/" + to.lstrip("/\\")
    elif to and to[0] not in "/?":
        to = "/" + to
    return make_head(rule.status, [("Location", origin + to)], 0), b""


def _carried(path: bytes, prefix: bytes) -> bytes:
    """What a redirection carries on of a path: all that is behind `prefix`, from a slash on."""
    if not path.startswith(b"/"):
        return b"/"  # OPTIONS *
    try:
        rest = without_prefix(path, prefix) or b"/"
        return normal_path(rest) if _DOTTED(rest) else rest
    except ProtocolViolation:
        return b"/"  # no path that a route is found for


def _host_of(head: RequestHead) -> bytes:
    """The host that was asked for, without its port."""
    host = head.host
    if host is None:
        raise ProtocolViolation(400, "no Host field, which the redirection needs")
    return host.partition(b"]")[0] + b"]" if host.startswith(b"[") else host.partition(b":")[0]


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


#: So many bytes of Accept are looked at.
_ENOUGH: Final = 1024


def prefers_json(section: Section | None) -> bool:
    """Whether a request's Accept fields, which are one list (RFC 9110, 5.3), rank JSON above plain text (12.5.1).

    At equal quality one that is named goes before one that a wildcard covers, and text before JSON. None: no request that
    could be read.
    """
    if section is None:
        return False
    accept = b",".join([field[1] for field in section.fields if field[0] == b"accept"])[:_ENOUGH].lower()
    if b"json" not in accept:
        return False
    best = {"json": (0.0, False), "text": (0.0, False)}
    for part in accept.split(b","):
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


def message_of(reason: str, detail: str = "") -> str:
    """A reason in words, for people."""
    message = _MESSAGES.get(reason, "The request was refused.")
    return f"{message[:-1]}: {detail}." if detail else message


def error(
    status: int, reason: str, request_id: bytes, head: RequestHead | None, detail: str = "", retry_after: int = 0
) -> tuple[ResponseHead, bytes]:
    """An error of ours, in the contract's two forms. `retry_after` is in seconds, 0 for none; a 503 always has one."""
    message = message_of(reason, detail)
    identity = request_id.decode("ascii")
    if prefers_json(head.section if head is not None else None):
        kind = "application/json"
        text = json.dumps({"status": status, "reason": reason, "request_id": identity, "message": message}) + "\n"
    else:
        kind = "text/plain; charset=utf-8"
        text = f"{status} {reason} {identity}\n{message}\n"
    body = text.encode()
    fields = [("Content-Type", kind), ("Cache-Control", "no-store")]
    if retry_after or status == 503:
        fields.append(("Retry-After", str(max(1, retry_after))))
    return make_head(status, fields, len(body)), body
