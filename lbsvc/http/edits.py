"""What a route changes on the way: the path that its backends see, header fields of requests and of answers.

Promises: an edit changes what it names and nothing else, and never how a message is framed: length, coding and connection
are out of its reach. Fields keep their order and their spelling. A path keeps its meaning but for the edit (see below), and
what comes out is a lawful request target, whatever the client sent and the regular expression made of it. Made once for
each route by routing.py, asked by the exchange; heads are never changed, only replaced.

Which spelling of a path is edited: routes match the normal form (core/paths.py), so it is the normal form that decides
whether a prefix is there and what an expression finds: `/%761/x` and `//v1/x` are no way around either. What came goes on as
it was spelled (`/v1/a%2fb` -> `/a%2fb`) where that means the same; where it does not, the normal form goes on. For
`/v1/../v1/x` is not `/../v1/x` without its prefix, though the bytes would say so.

The operator answers for how long an expression takes: it is run over paths that strangers choose, up to
limits.header_size; one that backtracks, such as `(a+)+$`, is theirs to use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Final

from lbsvc.config.schema import HeaderEdits, RouteSettings
from lbsvc.core.paths import normal_path
from lbsvc.errors import ProtocolViolation
from lbsvc.http.fields import BAD_HOST, DASHED, PLAIN, Rules, judge
from lbsvc.http.messages import Field, ResponseHead, Section

#: Where a message ends, and what ends with its connection: no edit's business. The configuration refuses them with words.
FRAMING: Final = frozenset({b"connection", b"content-length", b"transfer-encoding"})

#: What may not stand in a path that we made: see RFC 3986, 3.3; what came is never judged by this.
_UNLAWFUL: Final = re.compile(rb"[^\x21-\x7e]|[#?\\]")


#: What a section says about its answer, beside its fields.
_SAID: Final = ("body", "close", "keep_alive", "request_id", "upgrade")
_said: Final = attrgetter(*_SAID)


class HeaderEditor:
    """The edits of one route for one direction: what is removed, what is set in place of others, what is added.

    A name that some readers take for one that is removed or set (`X_User` for `X-User`: CGI and WSGI make one of both) is
    removed with it: it would bring back what the edit is there to keep out.
    """

    __slots__ = ("_added", "_removed", "_set", "_shadowed")

    def __init__(self, edits: HeaderEdits) -> None:
        self._removed = frozenset(name.lower().encode("ascii") for name in edits.remove)
        if self._removed & FRAMING:
            raise ValueError("an edit of what frames a message")
        self._set = {field[0]: field for field in (_field(name, value) for name, value in edits.set)}
        self._added = [_field(name, value) for name, value in edits.add]
        self._shadowed = frozenset(name.translate(DASHED) for name in (*self._removed, *self._set))

    def _is_kept(self, name: bytes) -> bool:
        """Whether a field of this name goes on, or at least its place."""
        if name in self._removed:
            return False
        return not (b"_" in name or b"." in name) or name in self._set or name.translate(DASHED) not in self._shadowed

    def edit(self, fields: Iterable[Field]) -> list[Field]:
        """The fields as they go on; `fields` stays as it is."""
        kept = [field for field in fields if self._is_kept(field[0])]
        if self._set:
            kept = _replaced(kept, self._set)
        return kept + self._added

    def apply(self, block: bytes) -> bytes:
        """The same for header lines, each of which ends in CRLF."""
        lines = block.split(b"\r\n")
        lines.pop()  # what is behind the last CRLF: nothing
        fields = [(line.partition(b":")[0].lower(), b"", line + b"\r\n", PLAIN) for line in lines]
        return b"".join([field[2] for field in self.edit(fields)])

    def without_edited(self, trailers: bytes) -> bytes:
        """Trailer lines but those of names that are edited: some readers would take them for fields that we made."""
        if not trailers:
            return trailers
        ours = self._set.keys() | {field[0] for field in self._added}
        kept = []
        for line in trailers.split(b"\r\n")[:-1]:
            name = line.partition(b":")[0].lower()
            if name not in ours and self._is_kept(name):
                kept.append(line + b"\r\n")
        return b"".join(kept)


def _field(name: str, value: str) -> Field:
    """One line of the configuration's; it has been checked there, and is once more: nothing else keeps a CRLF out."""
    line = f"{name}: {value}".encode("latin-1", "replace")
    try:
        field = judge(line, Rules())
    except ProtocolViolation as violation:
        raise ValueError(violation.detail) from violation
    if field[0] in FRAMING or field[0] != name.lower().encode("latin-1", "replace"):
        raise ValueError("an edit of what frames a message, or a name with a colon")
    if field[3] == BAD_HOST:
        raise ValueError("a Host that names no host")
    return field


def _replaced(fields: list[Field], replacing: dict[bytes, Field]) -> list[Field]:
    """Each of `replacing` stands where the first of its name stood, alone, or at the end where there was none."""
    missing = dict(replacing)
    kept = []
    for field in fields:
        name = field[0]
        if name not in replacing:
            kept.append(field)
        elif name in missing:
            kept.append(missing.pop(name))
    kept += missing.values()
    return kept


class Edits:
    """All that one route changes in requests and answers. ValueError where the settings could not be kept to."""

    __slots__ = ("_last", "_pattern", "_prefix", "_replacement", "request", "response")

    def __init__(self, route: RouteSettings) -> None:
        #: None where nothing is edited
        self.request = _editor(route.request_headers)
        self.response = _editor(route.response_headers)
        self._prefix = _prefix(route.strip_prefix)
        pattern, self._replacement = route.rewrite or (None, "")
        try:
            self._pattern = re.compile(pattern) if pattern is not None else None
            if self._pattern is not None:
                # The replacement's references are read here, whether there is a match or not.
                self._pattern.sub(self._replacement, "")
        except (re.error, IndexError) as error:
            raise ValueError(f"a rewrite that cannot be done: {error}") from error
        self._last: tuple[ResponseHead, ResponseHead] | None = None  # an answer's head, and what became of it

    @property
    def is_empty(self) -> bool:
        """Nothing is changed on this route."""
        return self.request is None and self.response is None and not self._prefix and self._pattern is None

    def target(self, target: bytes) -> bytes:
        """The request target that backends get; the query goes on as it came.

        Raises ProtocolViolation for a path that has no one meaning; such a request has been refused before, when its route
        was looked for.
        """
        if not (self._prefix or self._pattern) or not target.startswith(b"/"):
            return target
        path, mark, query = target.partition(b"?")
        if self._prefix:
            stripped = without_prefix(path, self._prefix)
            if stripped is not None:
                path = stripped
        if self._pattern is not None:
            path = _changed(path, self._rewrite) or path
        return path + mark + query

    def _rewrite(self, path: bytes) -> bytes | None:
        assert self._pattern is not None
        made, number = self._pattern.subn(self._replacement, path.decode("ascii"), 1)
        return rooted(_lawful(made)) if number else None

    def answer_trailers(self, trailers: bytes) -> bytes:
        """An answer's trailers, without those of names that its head's edits are about."""
        return trailers if self.response is None else self.response.without_edited(trailers)

    def answer(self, head: ResponseHead) -> ResponseHead:
        """An answer's head as the client gets it; `head` itself stays as it is. Not for interim answers."""
        editor = self.response
        if editor is None:
            return head
        last = self._last
        if last is None or not (head is last[0] or _is_same(head, last[0])):
            self._last = last = (head, _edited(head, editor))
        return last[1]

    def __repr__(self) -> str:
        parts = [name for name in ("request", "response") if getattr(self, name) is not None]
        parts += ["prefix"] if self._prefix else []
        parts += ["rewrite"] if self._pattern is not None else []
        return f"<Edits {' '.join(parts) or 'none'}>"


def _editor(edits: HeaderEdits) -> HeaderEditor | None:
    return HeaderEditor(edits) if edits.set or edits.add or edits.remove else None


def _is_same(head: ResponseHead, known: ResponseHead) -> bool:
    """Whether two heads say the same: backends repeat theirs, but each of their connections makes its own of it."""
    if head.wire != known.wire or head.minor != known.minor:
        return False
    return _said(head.section) == _said(known.section)


def _edited(head: ResponseHead, editor: HeaderEditor) -> ResponseHead:
    """A head like this one, but with the edits. What follows the fields in its lines frames it, and stays."""
    before, section = head.section, Section()
    for name in _SAID:
        setattr(section, name, getattr(before, name))
    framing = before.wire[sum([len(field[2]) for field in before.fields]) :]
    section.fields = fields = editor.edit(before.fields)
    section.wire = b"".join([field[2] for field in fields]) + framing
    section.has_date = any(field[0] == b"date" for field in fields)
    reason = head.wire[len(b"HTTP/1.1 200 ") : head.wire.index(b"\r\n")]
    return ResponseHead(head.status, reason, head.minor, section)


# -- paths


def _prefix(text: str | None) -> bytes:
    """A prefix in the form in which paths are matched, without a slash at its end."""
    try:
        return normal_path(_lawful(text)).rstrip(b"/") if text else b""
    except ProtocolViolation as violation:
        raise ValueError(violation.detail) from violation


def rooted(path: bytes) -> bytes:
    """With one slash at its beginning: `//evil.example` would be a host where it is read as a reference."""
    return b"/" + path.lstrip(b"/\\")


def without_prefix(path: bytes, prefix: bytes) -> bytes | None:
    """What is left of a path behind a prefix (in normal form, without a slash at its end), or None where it is not below it.

    Raises ProtocolViolation for a path that has no one meaning.
    """

    def strip(path: bytes) -> bytes | None:
        rest = path[len(prefix) :]
        # On a segment border: /v1 and /v1/x, not /v1x.
        return rooted(rest) if path.startswith(prefix) and (not rest or rest.startswith(b"/")) else None

    return _changed(path, strip)


def _changed(path: bytes, change: Callable[[bytes], bytes | None]) -> bytes | None:
    """A path as `change` makes it (None: it has nothing to do there), spelled as it came where that means the same."""
    meaning = normal_path(path)
    wanted = change(meaning)
    if wanted is None or meaning == path:
        return wanted
    spelled = change(path)
    return spelled if spelled is not None and _mean_same(spelled, wanted) else wanted


def _mean_same(one: bytes, other: bytes) -> bool:
    try:
        return normal_path(one) == normal_path(other)
    except ProtocolViolation:
        return False


def _lawful(text: str) -> bytes:
    """A path's text as it is written in a request line: escapes for whatever may not stand there, line ends above all."""
    return _UNLAWFUL.sub(_escape, text.encode("utf-8", "replace"))


def _escape(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]
