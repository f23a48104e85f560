"""TLS as a listener speaks it: its certificates, taken up anew as their files change, and what it learns of clients.

Promises: `connection` gives OpenSSL's end of a new client connection; what certificates, names and client CA mean is in
served_names.py. `look`, called every `reload_interval`, takes up files that have changed: all that is right at once, for
connections from then on; what is wrong changes nothing, is told once (`certificate.refused`) and tried again at each look,
so that a pair of which only one file has been written yet does no harm. Open connections live on with what they had.

A certificate that expires within two weeks is told once a day (`certificate.expiring`), and served also when it has.
Keys of session tickets are OpenSSL's own, made with each context: a client that comes back to another process has a whole
handshake, and new tickets. Decision (2026-11): so it stays with several workers. Keys that they could share are set by
SSL_CTX_set_tlsext_ticket_keys or a callback, and pyca's bindings have neither, nor SSL_CTX_ctrl, nor a callback for sessions
(cryptography 50); the one for external PSKs does not help, since their binders differ from a ticket's (RFC 8446, 4.2.11.2).

Built by the app for each listener with `tls`. Times are Unix seconds of the clock that is given. `look` reads files.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from cryptography import x509
from cryptography.hazmat.bindings.openssl.binding import Binding
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from lbsvc.config.certificates import (
    ENDING,
    Authorities,
    Certificate,
    CertificateFault,
    day,
    load_ca,
    load_pair,
    reasons,
)
from lbsvc.config.schema import ListenerTls
from lbsvc.net.arrival import ClientCertificate
from lbsvc.net.served_names import ServedNames, normal_name

_lib, _ffi = Binding.lib, Binding.ffi

T = TypeVar("T", bound="Certificate | Authorities")

DAY: Final = 86400.0
#: How long the keys of session tickets are used: whoever steals them can read so much of TLS 1.2.
KEYS_LIFETIME: Final = DAY

#: Characters of the longest subject that is passed on; a longer one is left out, for a part of it may be another's.
LONGEST_SUBJECT: Final = 2048

#: What tells one content of a file from the next: modification time, size and inode.
Stamp: TypeAlias = "tuple[tuple[int, int, int] | None, ...]"


class Tell(Protocol):
    """The event log, as this floor sees it."""

    def __call__(self, level: str, event: str, message: str, **fields: object) -> None: ...


class _Watched(Generic[T]):
    """What was loaded from files, and whether they have changed since."""

    def __init__(self, paths: Iterable[str], load: Callable[[], T]) -> None:
        self.paths = tuple(dict.fromkeys(paths))
        self.load = load
        self._stamp = _stamp(self.paths)
        self._is_settled = True
        self.value: T = load()
        self.told = ""  # the fault that was told, until the files change
        self.warned: float | None = None  # when its end was spoken of

    def has_changed(self) -> bool:
        """Are the files to be read again?

        Also once more after each change, and while they are wrong: a file may be written twice within what its time can
        tell, and we may have read in between.
        """
        stamp = _stamp(self.paths)
        if stamp != self._stamp:
            self._stamp = stamp
            self._is_settled = False
            self.told = ""
            return True
        if self._is_settled and not self.told:
            return False
        self._is_settled = True
        return True


def _stamp(paths: Iterable[str]) -> Stamp:
    return tuple(map(_stamp_of, paths))


def _stamp_of(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class ServerTls:
    """The server's side of TLS at one listener. Raises CertificateFault for files that cannot be used.

    `tell` is told about certificates, `wall` is the time of day.
    """

    def __init__(self, settings: ListenerTls, wall: Callable[[], float], tell: Tell) -> None:
        self.settings = settings
        self._wall = wall
        self._tell = tell
        self._certificates = [
            _Watched((files.cert, files.key), partial(load_pair, files)) for files in settings.certificates
        ]
        ca = settings.client_ca
        self._authorities = [] if ca is None else [_Watched((ca,), partial(load_ca, ca))]
        #: how often changed files were taken up, and how often they were wrong
        self.reloads = {"success": 0, "failure": 0}
        #: the end of each certificate by its first name (the earlier one of two), for the metric
        self.expiries: dict[str, float] = {}
        try:
            self._take_up()
        except SSL.Error as error:
            raise CertificateFault("ciphers", f"are refused by OpenSSL: {reasons(error)}") from None

    @property
    def asks_for_certificates(self) -> bool:
        """Whether clients are asked for a certificate."""
        return bool(self._authorities)

    def connection(self, skt: socket.socket | None) -> SSL.Connection:
        """Our end of a client's connection, waiting for its hello; without a socket it works in memory."""
        connection = SSL.Connection(self._served.default, skt)
        connection.set_accept_state()
        return connection

    def look(self) -> None:
        """Take up what has changed, and speak of what ends soon.

        To be called every `reload_interval`; where there is none, now and then all the same: files are left alone then.
        """
        changes: list[tuple[_Watched[Any], Any]] = []
        if self.settings.reload_interval is not None:
            changes += _renewed(self._certificates, self._refuse)
            changes += _renewed(self._authorities, self._refuse)
        if changes or not 0 <= self._wall() - self._made < KEYS_LIFETIME:
            before = [(watched, watched.value) for watched, _ in changes]
            for watched, value in changes:
                watched.value = value
            try:
                self._take_up()
            except SSL.Error as error:
                for watched, value in before:
                    watched.value = value
                    fault = CertificateFault("cert", f"is refused by OpenSSL: {reasons(error)}", watched.paths[0])
                    self._refuse(watched, fault)
            else:
                for watched, value in changes:
                    watched.told, watched.warned = "", None
                    self.reloads["success"] += 1
                    self._tell_loaded(value)
        self._watch_dates()

    def _take_up(self) -> None:
        certificates = [watched.value for watched in self._certificates]
        authorities = self._authorities[0].value if self._authorities else None
        self._served = ServedNames(self.settings, certificates, authorities)
        self._made = self._wall()
        expiries: dict[str, float] = {}
        for certificate in certificates:
            expiries[certificate.label] = min(certificate.not_after, expiries.get(certificate.label, float("inf")))
        self.expiries = expiries

    def _refuse(self, watched: _Watched[Any], fault: CertificateFault) -> None:
        if watched.told == fault.message:
            return
        watched.told = fault.message
        self.reloads["failure"] += 1
        message = f"{fault.path} {fault.message}; what was loaded before stays"
        self._tell("error", "certificate.refused", message, path=fault.path, detail=fault.message)

    def _tell_loaded(self, value: Certificate | Authorities) -> None:
        if isinstance(value, Authorities):
            count = len(value.certificates)
            message = f"clients are judged by {value.path} ({count} certificate{'s' if count > 1 else ''})"
            self._tell("info", "certificate.loaded", message, path=value.path)
            return
        oddities = list(value.notes)
        if value.not_before > self._wall():
            oddities.append(f"is not valid before {day(value.not_before)}")
        self._tell(
            "warn" if oddities else "info",
            "certificate.loaded",
            "; ".join((f"the certificate of {value.label} is valid until {day(value.not_after)}", *oddities)),
            name=value.label,
            path=value.files.cert,
            fingerprint=value.fingerprint,
            not_after=_timestamp(value.not_after),
        )

    def _watch_dates(self) -> None:
        now = self._wall()
        for watched in self._certificates:
            certificate = watched.value
            left = certificate.not_after - now
            if left > ENDING or (watched.warned is not None and 0 <= now - watched.warned < DAY):
                continue
            watched.warned = now
            ends = f"expires on {day(certificate.not_after)}"
            if left <= 0:
                ends = f"has expired on {day(certificate.not_after)}, and is served still"
            self._tell(
                "warn",
                "certificate.expiring",
                f"the certificate of {certificate.label} {ends}",
                name=certificate.label,
                path=certificate.files.cert,
                not_after=_timestamp(certificate.not_after),
                days=round(left / DAY, 1),
            )


def _renewed(
    watched: Iterable[_Watched[T]], refuse: Callable[[_Watched[Any], CertificateFault], None]
) -> list[tuple[_Watched[T], T]]:
    """What has another content than before. The same one again, in a new file, is nothing new."""
    found = []
    for each in watched:
        if not each.has_changed():
            continue
        try:
            value = each.load()
        except CertificateFault as fault:
            refuse(each, fault)
            continue
        if _content(value) != _content(each.value):
            found.append((each, value))
        else:
            each.told = ""
    return found


def _content(value: Certificate | Authorities) -> tuple[x509.Certificate, ...]:
    """What makes it what it is: a key is the one of its certificate."""
    return value.chain if isinstance(value, Certificate) else value.certificates


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def arrival_facts(connection: SSL.Connection) -> tuple[str, str, str, bytes, ClientCertificate | None]:
    """Of a connection after its handshake: version, cipher, the name asked for, ALPN's protocol, the client's certificate.

    All of them are there for resumed sessions, too. The words are those of net/arrival.py.
    """
    return (
        connection.get_protocol_version_name(),
        connection.get_cipher_name() or "",
        normal_name(connection.get_servername()),
        connection.get_alpn_proto_negotiated(),
        _client_certificate(connection),
    )


def failure_of(connection: SSL.Connection, error: SSL.Error) -> str:
    """Why a handshake has failed, in OpenSSL's words, for the event log: never bytes of the peer."""
    verdict = _lib.SSL_get_verify_result(connection._ssl)
    words = reasons(error)
    if verdict == _lib.X509_V_OK:
        return words
    return f"{words}: {_ffi.string(_lib.X509_verify_cert_error_string(verdict)).decode('ascii', 'replace')}"


def _client_certificate(connection: SSL.Connection) -> ClientCertificate | None:
    if (
        not connection.get_verify_mode() & SSL.VERIFY_PEER
        or _lib.SSL_get_verify_result(connection._ssl) != _lib.X509_V_OK
    ):
        return None
    shown = connection.get_peer_certificate()
    if shown is None:
        return None
    found = shown.to_cryptography()
    fingerprint = found.fingerprint(hashes.SHA256()).hex()
    try:
        subject = ascii_subject(found.subject.rfc4514_string())
        common = [str(attribute.value) for attribute in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except ValueError:  # a name that cannot be read: it is who it is, but nobody can say how it is called
        return ClientCertificate("", fingerprint, "")
    return ClientCertificate(subject if len(subject) <= LONGEST_SUBJECT else "", fingerprint, (common or [""])[-1])


def ascii_subject(name: str) -> str:
    """A name of RFC 4514 in visible ASCII and spaces: whatever else it has becomes escaped UTF-8, `\\C3\\A4`."""
    if name.isascii() and name.isprintable():
        return name
    return "".join(
        character
        if " " <= character <= "~"
        else "".join(f"\\{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
        for character in name
    )
