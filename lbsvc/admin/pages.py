"""The dashboard's files, and who is signed in to it: everything below /dashboard/.

Promises: GET and HEAD of the files of the folder dashboard/, which were read once, with an ETag, a Content-Security-Policy
that lets the page have nothing but what comes from here, and no other header that is anybody else's business; /dashboard
leads to /dashboard/, and so does / for whoever accepts HTML. Where `admin.dashboard` is off there is nothing, from the next
request on. `session` says what the page may do, takes the token (POST) and gives a cookie for it that no script can read,
no other site can send, and that does not tell the token; DELETE has it forgotten. Who may ask at all was settled
before (gate.py). Used by site.py.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final, Protocol, cast

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from typing_extensions import override

from lbsvc.admin.bodies import Malformed, Unfit, read_object, written
from lbsvc.admin.channel import AdminRequest
from lbsvc.admin.control import Control
from lbsvc.admin.gate import Gate
from lbsvc.admin.metricspage import accepts_html
from lbsvc.admin.streams import encode
from lbsvc.admin.tries import WAIT, Tries, peer_of

_TYPES: Final = {
    "html": b"text/html; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
    "txt": b"text/plain; charset=utf-8",
}

#: Of every file.
HEADERS: Final = (
    (
        b"Content-Security-Policy",
        b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Cross-Origin-Opener-Policy", b"same-origin"),
    (b"Cache-Control", b"no-cache"),  # kept, and asked for again by its tag
)

#: How long a browser stays signed in, in seconds: thirty days.
KEPT: Final = 30 * 24 * 3600


class File:
    """One file, as it is sent."""

    def __init__(self, content: bytes, content_type: bytes) -> None:
        self.content = content
        self.content_type = content_type
        self.tag = b'"%b"' % hashlib.sha256(content).hexdigest()[:24].encode()


class Guarded(Protocol):
    """The part of site.py's GuardedSite that is asked."""

    gate: Gate
    tries: Tries


def read_files() -> dict[bytes, File]:
    """Path below /dashboard/ -> file, of everything that has a type; index.html is also at the empty path."""
    found: dict[bytes, File] = {}
    _read(resources.files("lbsvc.admin").joinpath("dashboard"), "", found)
    found[b""] = found[b"index.html"]
    return found


def _read(folder: Traversable, place: str, found: dict[bytes, File]) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            _read(entry, f"{place}{entry.name}/", found)
        elif content_type := _TYPES.get(entry.name.rpartition(".")[2]):
            found[f"{place}{entry.name}".encode()] = File(entry.read_bytes(), content_type)


class Top(Resource):
    """The path /: browsers are shown to the dashboard; for others there is nothing."""

    isLeaf = True  # noqa: N815 - Twisted's name

    def __init__(self, control: Control) -> None:
        super().__init__()
        self._control = control

    @override
    def render(self, request: AdminRequest) -> int:
        admin = self._control.settings().admin
        accept = b",".join(request.requestHeaders.getRawHeaders(b"Accept", [])).decode("latin-1")
        is_on = admin is None or admin.dashboard
        if request.postpath or request.method not in (b"GET", b"HEAD") or not is_on or not accepts_html(accept):
            request.fail(404, "there is nothing at this path", ((b"Vary", b"Accept"),))
        else:
            request.setResponseCode(302)  # not for ever: the dashboard may be switched off
            request.setHeader(b"Location", b"/dashboard/")
            request.setHeader(b"Vary", b"Accept")
            request.answer(b"", _TYPES["txt"])
        return NOT_DONE_YET


class Dashboard(Resource):
    """Everything below /dashboard/."""

    isLeaf = True  # noqa: N815 - Twisted's name

    def __init__(self, control: Control) -> None:
        super().__init__()
        self._control = control
        self._files = read_files()

    @override
    def render(self, request: AdminRequest) -> int:
        path = b"/".join(request.postpath or ())
        file = self._files.get(path)
        admin = self._control.settings().admin
        if admin is not None and not admin.dashboard:
            request.fail(404, "the dashboard is off (admin.dashboard)")
        elif not request.path.startswith(b"/dashboard/"):
            request.setResponseCode(301)
            request.setHeader(b"Location", b"/dashboard/")
            request.answer(b"", _TYPES["txt"])
        elif path == b"session":
            self._session(request)
        elif file is None:
            request.fail(404, "there is nothing at this path")
        elif request.method not in (b"GET", b"HEAD"):
            request.fail(405, "this can only be read", ((b"Allow", b"GET, HEAD"),))
        else:
            self._send(request, file)
        return NOT_DONE_YET

    def _send(self, request: AdminRequest, file: File) -> None:
        for name, value in HEADERS:
            request.setHeader(name, value)
        request.setHeader(b"ETag", file.tag)
        tags = b",".join(request.requestHeaders.getRawHeaders(b"If-None-Match", []))
        known = [tag.strip().removeprefix(b"W/") for tag in tags.split(b",")]
        if file.tag in known or b"*" in known:
            request.setResponseCode(304)
            request.finish()
        else:
            request.answer(file.content, file.content_type)

    # -- who is signed in

    def _session(self, request: AdminRequest) -> None:
        gate = cast(Guarded, request.site).gate
        if request.method in (b"GET", b"HEAD"):
            cookies = request.requestHeaders.getRawHeaders(b"Cookie", [])
            self._tell(request, gate, not gate.token or gate.is_signed_in(cookies))
        elif request.method == b"DELETE":
            self._set_cookie(request, gate.cookie[0], b"", 0)
            self._tell(request, gate, not gate.token)
        elif request.method == b"POST":
            self._sign_in(request, gate)
        else:
            request.fail(405, "only GET, HEAD, POST, DELETE", ((b"Allow", b"GET, HEAD, POST, DELETE"),))

    def _sign_in(self, request: AdminRequest, gate: Gate) -> None:
        assert request.content is not None
        request.content.seek(0)
        try:
            token = written(read_object(request.content.read()), "token").strip().encode()
        except Malformed as error:
            request.fail(400, str(error))
            return
        except Unfit as error:
            request.fail(422, str(error))
            return
        peer, tries = peer_of(request.getClientAddress(), request.channel.transport), cast(Guarded, request.site).tries
        wait = tries.wait(peer) if gate.token else 0
        if wait:
            request.fail(429, WAIT, ((b"Retry-After", b"%d" % wait),))
            return
        if gate.token and not gate.is_token(token):
            tries.failed(peer, b"form " + token)
            request.fail(401, "this is not the token", ((b"WWW-Authenticate", b'Bearer realm="lbsvc"'),))
            return
        if gate.token:
            if gate.is_long:
                tries.passed(peer)
            self._set_cookie(request, *gate.cookie, KEPT)
        self._tell(request, gate, True)

    @staticmethod
    def _set_cookie(request: AdminRequest, name: bytes, value: bytes, age: int) -> None:
        cookie = b"%b=%b; Path=/; Max-Age=%d; HttpOnly; SameSite=Strict" % (name, value, age)
        request.setHeader(b"Set-Cookie", cookie)

    def _tell(self, request: AdminRequest, gate: Gate, is_signed_in: bool) -> None:
        admin = self._control.settings().admin
        session = {
            "token": bool(gate.token),
            "signed_in": is_signed_in,
            "read_only": is_signed_in and admin is not None and admin.read_only,
        }
        request.answer(encode(session), b"application/json")
