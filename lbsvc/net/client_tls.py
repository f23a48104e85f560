"""TLS towards backends: how it is spoken, and who must be there.

`UpstreamTls` is one OpenSSL context, made from a pool's `tls` section; `for_host` gives the `ClientTls` of one backend.
For each connection net/handshaking.py asks that for `connection`, makes the handshake, and calls `verify` before anybody
else sees the connection; `remember` when it parts, `forget` when its handshake fails.

Promises
- Nobody is believed who is not certainly the one that was meant. OpenSSL verifies the chain in the handshake, for the
  purpose of being a server; then service_identity compares subjectAltName with the name, or with the address where the
  host is one. There is no other way through: no certificate, no subjectAltName, a name that cannot be read, a backend
  that has no name to compare with (a unix socket without `server_name`), an exception that nobody has thought of, all
  refuse. A common name counts for nothing; a wildcard stands for one whole label, the first of three at least. Only
  `verify: false` turns this off, and then all of it.
- A session is used again only with the host and the settings that it was made with. All that is taken over from it is
  that the chain was verified: the certificate in it is compared with the name each time. An hour after the handshake
  that verified the chain, or at the certificate's end if that comes first, a whole handshake is due: resumption puts
  nothing off for long. One session is kept for each host, and none of TLS 1.3 that cannot be resumed takes its place.
- TLS 1.2 at least, no renegotiation, no compression, no early data. No callback from OpenSSL into Python is used, so
  MemoryDenyWriteExecute does no harm here.
- What `Unverified` and `explain` say are our words and OpenSSL's own, for a log line: never bytes of the peer.

Decisions: with `ca` the system's store does not count. The cipher list for TLS 1.2 is OpenSSL's default, since backends
may be older than clients and nobody could choose another one. A client certificate is shown to whoever has a chain that
is verified: the name is compared when the handshake is over, and before anything else is said.

Costs (2026-11-21, Python 3.11): `connection` 6.5 us, `remember` 1 us, `verify` 26 us for a certificate that is new and 6 us
for the one that was seen last; both sides of a handshake in memory 780 us, resumed 530 us. The system's store takes 4 ms
and 0.8 MB for each UpstreamTls, so pools of equal settings may well share one.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

import idna
from cryptography import x509
from OpenSSL import SSL, crypto
from OpenSSL._util import ffi, lib
from service_identity.cryptography import extract_patterns
from service_identity.exceptions import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity

from lbsvc.config.certificates import load_ca, load_pair
from lbsvc.config.schema import PoolTls
from lbsvc.core.networks import normal_address
from lbsvc.errors import LbsvcError

__all__ = ["ClientTls", "Unverified", "UpstreamTls", "explain", "is_resumed"]

#: Seconds after which a chain that was verified is verified anew.
LONGEST_SESSION: Final = 3600.0
#: That a backend was refused is told once in so many seconds.
TOLD_EACH: Final = 10.0
#: Characters of the longest name that DNS knows.
LONGEST_NAME: Final = 253

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_NEVER: Final = float("inf")
_X509_V_OK: Final = 0
#: OpenSSL's word for a connection whose handshake is over.
_OVER: Final = b"SSL negotiation finished successfully"

_VERIFY_FAILED: Final = "certificate verify failed"
#: How OpenSSL's reasons begin where they are an alert that the other side has sent.
_ALERT: Final = re.compile(r"(?:(?:tls|tlsv1|tlsv13|sslv3) alert|tlsv1) ")
_HINTS: Final = {
    "wrong version number": "is it a TLS server?",
    "unsupported protocol": "TLS 1.2 is the least that is spoken here",
    "protocol version": "TLS 1.2 is the least that is spoken here",
    "unrecognized name": "it does not know the name that it was asked for",
    "no application protocol": "it speaks none of the protocols that it was offered",
    "certificate required": "it wants a client certificate: tls.cert and tls.key",
    "unknown ca": "it does not know the CA of our certificate",
}


class Unverified(LbsvcError):
    """It is not certain who is there; the text says why."""


class _Link(SSL.Connection):
    """A connection to a backend, and what will be known about its session."""

    #: when the chain was verified that is believed here, in Unix seconds: in its own handshake, or before it resumed
    since = 0.0
    #: when that is no longer enough
    until = 0.0
    #: the session that was offered
    offered: SSL.Session | None = None
    #: the session that it had when the handshake was over, where that is not one to be resumed
    first: SSL.Session | None = None
    is_verified = False


class UpstreamTls:
    """How TLS is spoken to the backends of a pool.

    `settings` None: the defaults. `alpn`: the protocols that are offered, best first. `wall`: Unix seconds. Raises
    CertificateFault where a file cannot be used; what is in the files is taken up here and never looked at again.
    """

    def __init__(
        self,
        settings: PoolTls | None,
        wall: Callable[[], float],
        alpn: Sequence[str] = (),
        tell: Callable[[str, str], None] | None = None,
    ) -> None:
        self.tell = tell  # of a backend, by its name, that was refused, and why
        self.settings = settings = settings or PoolTls()
        self.wall = wall
        self.openssl = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self.openssl.set_min_proto_version(SSL.TLS1_2_VERSION)
        self.openssl.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)  # type: ignore[attr-defined]
        self.openssl.set_mode(SSL.MODE_RELEASE_BUFFERS)  # idle connections are many
        self.openssl.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # sessions are kept here, not there
        if alpn:
            self.openssl.set_alpn_protos([each.encode("ascii") for each in alpn])
        if settings.client is not None:
            load_pair(settings.client, is_client=True).use_in(self.openssl)
        if settings.verify:
            if settings.ca is not None:
                load_ca(settings.ca).trust_in(self.openssl)
            else:
                self.openssl.set_default_verify_paths()
            self.openssl.set_verify(SSL.VERIFY_PEER)

    def for_host(self, host: str) -> ClientTls:
        """How it is spoken to this one: a name (perhaps an IDN), an IP literal, or the path of a unix socket."""
        return ClientTls(self, host)


class ClientTls:
    """How TLS is spoken to one backend, and its session of the last success. Made by UpstreamTls.for_host."""

    def __init__(self, upstream: UpstreamTls, host: str) -> None:
        self.upstream = upstream
        #: the name that is asked for and verified: ASCII in lower case, or an IP address; "" for none that would do
        self.name, self._identity = _identify(upstream.settings.server_name or host)
        self._asked = self.name.encode("ascii") if isinstance(self._identity, DNS_ID) else None
        self._seen: tuple[bytes, float] = (b"", 0.0)  # the certificate that was right, and its end
        self._session: SSL.Session | None = None
        self._since = self._until = 0.0
        self._told_at = 0.0

    def connection(self, skt: socket.socket | None) -> SSL.Connection:
        """A client's side that has said nothing yet, on a socket that is connected (None: on memory, for tests)."""
        link = _Link(self.upstream.openssl, skt)
        link.set_connect_state()
        if self._asked is not None:
            link.set_tlsext_host_name(self._asked)
        session = self._session
        if session is not None:
            if self._since <= self.upstream.wall() < self._until:
                link.set_session(session)
                link.offered = session
                link.since = self._since
            else:
                self._session = None
        return link

    def verify(self, connection: SSL.Connection) -> None:
        """Whoever is there at the end of the handshake is the one that was meant; raises Unverified in every other case."""
        assert isinstance(connection, _Link)
        try:
            if connection.get_state_string() != _OVER:
                raise Unverified("the handshake is not over")
            if not is_resumed(connection):
                connection.since = self.upstream.wall()
            end = self._judge(connection) if self.upstream.settings.verify else _NEVER
        except Unverified:
            self.forget(connection)
            raise
        except Exception as error:
            self.forget(connection)
            raise Unverified(f"the certificate cannot be judged ({type(error).__name__})") from error
        connection.until = min(connection.since + LONGEST_SESSION, end)
        if connection.get_protocol_version() != SSL.TLS1_2_VERSION:
            connection.first = connection.get_session()
        connection.is_verified = True

    def _judge(self, connection: SSL.Connection) -> float:
        """The end of its certificate, which is right."""
        verdict = lib.SSL_get_verify_result(connection._ssl)
        if verdict != _X509_V_OK:
            raise Unverified(_verdict(verdict))
        shown = connection.get_peer_certificate()
        if shown is None:
            raise Unverified("there is no certificate")
        der = crypto.dump_certificate(crypto.FILETYPE_ASN1, shown)
        seen, end = self._seen
        if der != seen:
            if self._identity is None:
                raise Unverified("the backend has no name that a certificate could have: tls.server_name gives one")
            certificate = x509.load_der_x509_certificate(der)
            _compare(certificate, self._identity)
            end = certificate.not_valid_after_utc.timestamp()
            self._seen = der, end
        return end

    def remember(self, connection: SSL.Connection) -> None:
        """Keep its session for the connections to come, if there is one that can be resumed.

        To be called when the connection parts: the tickets of TLS 1.3 come after the handshake, with the first bytes
        that are read. OpenSSL spoils a session whose connection is freed before close_notify was seen or sent (or
        set_shutdown has said so), whether it is kept here or not.
        """
        assert isinstance(connection, _Link)
        if not connection.is_verified or connection.since < self._since:
            return
        session = connection.get_session()
        if session is None or _is_same(session, connection.first):
            return
        self._session, self._since, self._until = session, connection.since, connection.until

    def complain(self, detail: str) -> None:
        """Say that it was refused, if not each time."""
        now = self.upstream.wall()
        if self.upstream.tell is not None and not self._told_at <= now < self._told_at + TOLD_EACH:
            self._told_at = now
            self.upstream.tell(self.name, detail)

    def forget(self, connection: SSL.Connection) -> None:
        """Its handshake has failed: the session that it offered is not offered again."""
        assert isinstance(connection, _Link)
        if connection.offered is not None and connection.offered is self._session:
            self._session = None

    def __repr__(self) -> str:
        return f"<ClientTls to {self.name or 'nobody by name'}>"


def is_resumed(connection: SSL.Connection) -> bool:
    """Was its handshake a short one?"""
    return bool(lib.SSL_session_reused(connection._ssl))


def explain(error: BaseException, connection: SSL.Connection | None = None) -> tuple[bool, str]:
    """Why a handshake has failed: is it that the backend was not verified, and words for the log."""
    if isinstance(error, Unverified):
        return True, str(error)
    if isinstance(error, SSL.ZeroReturnError):
        return False, "the backend has ended TLS before it had begun"
    if isinstance(error, SSL.SysCallError):
        number = error.args[0] if error.args else -1
        return False, os.strerror(number) if number > 0 else "the backend has closed the connection in the handshake"
    if not isinstance(error, SSL.Error):
        return False, str(error) or type(error).__name__
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reasons = [entry[2] for entry in queue if entry[2]]
    if _VERIFY_FAILED in reasons:
        if connection is None:
            return True, _VERIFY_FAILED
        return True, _verdict(lib.SSL_get_verify_result(connection._ssl))
    if not reasons:
        return False, "OpenSSL gives no reason"
    alert = _ALERT.match(reasons[0])
    reason = reasons[0][alert.end() :] if alert else reasons[0]
    hint = f" ({_HINTS[reason]})" if reason in _HINTS else ""
    return False, f"{'the backend refuses: ' if alert else ''}{reason}{hint}"


def _verdict(number: int) -> str:
    words = ffi.string(lib.X509_verify_cert_error_string(number)).decode("ascii", "replace")
    return f"{_VERIFY_FAILED}: {words}"


def _identify(host: str) -> tuple[str, DNS_ID | IPAddress_ID | None]:
    """A host in the form in which a certificate would have it, and what is compared with the certificate."""
    address = normal_address(host)
    if address is not None:
        return address, IPAddress_ID(address)
    name = host[:-1] if host.endswith(".") else host
    try:
        name = name.lower() if name.isascii() else idna.encode(name, uts46=True).decode("ascii")
        if len(name) <= LONGEST_NAME and _NAME.fullmatch(name):
            return name, DNS_ID(name)
    except ValueError:  # no IDN, or a number, which is no name
        pass
    return "", None


def _compare(certificate: x509.Certificate, identity: DNS_ID | IPAddress_ID) -> None:
    try:
        verify_service_identity(extract_patterns(certificate), [identity], [])
    except VerificationError:
        meant = identity.hostname.decode("ascii") if isinstance(identity, DNS_ID) else str(identity.ip)
        raise Unverified(f"the certificate is not one for {meant}") from None
    except CertificateError:
        raise Unverified("the certificate has no subjectAltName, or one that is not as it should be") from None


def _is_same(session: Any, other: Any) -> bool:
    return other is not None and session._session == other._session
