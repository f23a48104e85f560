"""TLS on real sockets for tests: a raw client that can say its end without hearing the other's, and scripted backends.

Promises: every wait has a deadline; what a client or backend is (version, names, certificates) is given to it, never found
on the machine. The client is pyOpenSSL, since the ssl module cannot end one direction; the backends are the ssl module,
so that what we speak is not always tested against itself. Used by the tests of the real process.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509
from typing_extensions import override

from tests.kit.authority import Authority, Leaf
from tests.kit.processes import DEADLINE, RawClient
from tests.kit.upstreams import Conversation, Ended, RecordingBackend, Step

VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
SSL_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def client_side(
    authority: Authority | None = None, version: str | None = None, shown: Leaf | None = None
) -> SSL.Context:
    """What clients are made of: whom they believe (None: everybody), one version or any, a certificate of their own."""
    made = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if version is not None:
        made.set_min_proto_version(VERSIONS[version])
        made.set_max_proto_version(VERSIONS[version])
    if authority is not None:
        store = made.get_cert_store()
        assert store is not None
        store.add_cert(X509.from_cryptography(authority.certificate))
        made.set_verify(SSL.VERIFY_PEER)
    if shown is not None:
        made.use_certificate(X509.from_cryptography(shown.certificate))
        for each in shown.chain:
            made.add_extra_chain_cert(X509.from_cryptography(each))
        made.use_privatekey(shown.key)
    return made


class SecureSocket:
    """A connected socket and the TLS on it, with the methods of a blocking socket and a deadline for each of them."""

    def __init__(self, sock: socket.socket, side: SSL.Context, name: str | None, session: SSL.Session | None) -> None:
        self._sock = sock
        sock.setblocking(False)
        self.tls = SSL.Connection(side, sock)
        self.tls.set_connect_state()
        if name is not None:
            self.tls.set_tlsext_host_name(name.encode())
        if session is not None:
            self.tls.set_session(session)
        self._do(self.tls.do_handshake)

    def _do(self, job: Callable[[], Any]) -> Any:
        end = time.monotonic() + DEADLINE
        while True:
            try:
                return job()
            except SSL.WantReadError:
                wants: tuple[list[socket.socket], list[socket.socket]] = [self._sock], []
            except SSL.WantWriteError:
                wants = [], [self._sock]
            if not any(select.select(*wants, [], max(0.0, end - time.monotonic()))):
                raise TimeoutError(f"TLS waited for {DEADLINE} s")

    def recv(self, count: int) -> bytes:
        """Some bytes; none once the peer has said that it ends. EOFError where it ends and has not said so."""
        try:
            got: bytes = self._do(lambda: self.tls.recv(count))
        except SSL.ZeroReturnError:
            return b""
        except SSL.SysCallError as error:
            if error.args[0] == -1:
                raise EOFError("ended without close_notify") from None
            raise ConnectionResetError(*error.args) from None
        except SSL.Error as error:
            if "unexpected eof" in str(error):
                raise EOFError("ended without close_notify") from None
            raise
        return got

    def sendall(self, content: bytes) -> None:
        """All of it."""
        view = memoryview(content)
        while view:
            piece = bytes(view[:16384])
            view = view[self._do(lambda piece=piece: self.tls.send(piece)) :]

    def shutdown(self, how: int) -> None:
        """Say that nothing more comes (close_notify), and hear what the other side has still to say."""
        with contextlib.suppress(SSL.WantReadError):
            self.tls.shutdown()

    def cut(self, how: int) -> None:
        """End the connection below TLS, which says nothing of it."""
        self._sock.shutdown(how)

    def settimeout(self, seconds: float) -> None:
        """Each wait has its deadline already."""

    def close(self) -> None:
        """Close the socket and say nothing."""
        self._sock.close()


class SecureClient(RawClient):
    """A RawClient whose bytes go through TLS; `preface` goes out before it, in the clear."""

    def __init__(
        self,
        port: int,
        name: str | None = None,
        side: SSL.Context | None = None,
        *,
        session: SSL.Session | None = None,
        preface: bytes = b"",
    ) -> None:
        super().__init__(port)
        plain = self.sock
        try:
            plain.sendall(preface)
            self.secure = SecureSocket(plain, side or client_side(), name, session)
        except BaseException:
            plain.close()
            raise
        self.sock = self.secure  # type: ignore[assignment]

    @override
    def __enter__(self) -> Self:
        return self

    @property
    def version(self) -> str:
        """TLSv1.2 or TLSv1.3."""
        return self.secure.tls.get_protocol_version_name()

    @property
    def certificate(self) -> x509.Certificate:
        """What the server has shown."""
        shown = self.secure.tls.get_peer_certificate()
        assert shown is not None
        return shown.to_cryptography()


class SecureBackend(RecordingBackend):
    """A RecordingBackend that speaks TLS.

    `handshakes` has of each that succeeded: version, the name asked for, the common name of the certificate that was shown,
    and whether it was resumed; `refusals` has why others failed.
    `clients` asks for certificates of that CA, and insists. `is_headed`: the bytes of a PROXY header come first, up to CRLF
    (version 1) or as long as they say (2), and are kept in `headers`.
    """

    def __init__(
        self,
        leaf: Leaf,
        script: Sequence[Step] | Callable[[int], Sequence[Step]],
        *,
        folder: str,
        version: str | None = None,
        clients: Authority | None = None,
        is_headed: bool = False,
    ) -> None:
        self._folder, self._version, self._clients = folder, version, clients
        self.wear(leaf)
        self.is_headed = is_headed
        self.headers: list[bytes] = []
        self.names: dict[ssl.SSLObject | ssl.SSLSocket, str] = {}
        self.handshakes: list[tuple[str, str, str, bool]] = []
        self.refusals: list[str] = []
        super().__init__(script)

    def wear(self, leaf: Leaf) -> None:
        """Show this certificate to those who come from now on; sessions of before are forgotten."""
        self.side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.side.load_cert_chain(*leaf.write(self._folder, f"backend-{id(self)}"))
        self.side.sni_callback = self._note_name
        if self._version is not None:
            self.side.minimum_version = self.side.maximum_version = SSL_VERSIONS[self._version]
        if self._clients is not None:
            self.side.load_verify_locations(cadata=self._clients.pem.decode())
            self.side.verify_mode = ssl.CERT_REQUIRED

    def _note_name(self, sock: ssl.SSLSocket | ssl.SSLObject, name: str | None, side: ssl.SSLContext) -> None:
        self.names[sock] = name or ""

    @override
    def _talk(self, talk: Conversation) -> None:
        plain = talk.sock
        plain.settimeout(DEADLINE)
        try:
            if self.is_headed:
                self.headers.append(read_header(plain))
            secured = self.side.wrap_socket(plain, server_side=True)
        except (OSError, EOFError) as error:
            self.refusals.append(str(error))
            plain.close()
            talk.over.set()
            return
        self.handshakes.append(
            (secured.version() or "", self.names.get(secured, ""), _common_name(secured), bool(secured.session_reused))
        )
        secured.settimeout(0.1)
        talk.sock = secured
        super()._talk(talk)


class EndSecurely(Step):
    """Say the end by close_notify, hear the other's, and close."""

    def run(self, talk: Conversation) -> None:
        assert isinstance(talk.sock, ssl.SSLSocket)
        talk.sock.settimeout(DEADLINE)
        with contextlib.suppress(OSError):
            talk.sock.unwrap()
        raise Ended("said")


def _common_name(secured: ssl.SSLSocket) -> str:
    shown: Any = secured.getpeercert() or {}
    return next((value for part in shown.get("subject", ()) for key, value in part if key == "commonName"), "")


def read_header(sock: socket.socket) -> bytes:
    """A PROXY header of either version, and not a byte more."""
    got = _exactly(sock, 12)
    if got == b"\r\n\r\n\0\r\nQUIT\n":
        got += _exactly(sock, 4)
        return got + _exactly(sock, int.from_bytes(got[14:16], "big"))
    while not got.endswith(b"\r\n"):
        got += _exactly(sock, 1)
    return got


def _exactly(sock: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        piece = sock.recv(count - len(got))
        if not piece:
            raise EOFError(f"ended after {got!r}")
        got += piece
    return got


class HeaderStep(Step):
    """Read a PROXY header of either version in the clear; it is kept in `headers`."""

    def __init__(self) -> None:
        self.headers: list[bytes] = []

    def run(self, talk: Conversation) -> None:
        got = talk.consume(12)
        if got == b"\r\n\r\n\0\r\nQUIT\n":
            got += talk.consume(4)
            got += talk.consume(int.from_bytes(got[14:16], "big"))
        while got[:1] == b"P" and not got.endswith(b"\r\n"):
            got += talk.consume(1)
        self.headers.append(got)


def save(leaf: Leaf, folder: str, name: str) -> dict[str, str]:
    """Files of a certificate and its key, which is for its owner alone; as `certificates` of a listener wants them."""
    cert, key = leaf.write(folder, name)
    os.chmod(key, 0o600)
    return {"cert": cert, "key": key}
