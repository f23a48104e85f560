"""The OpenSSL contexts of a listener that terminates TLS: which certificate is shown for which name.

Promises: by SNI, exact names go before wildcards (`*.example.com` is one label more than example.com, never two), and what
nobody has gets the first certificate. Certificates of different kinds (RSA, ECDSA) for the same name are in one context,
each with its own chain, so that OpenSSL takes the kind that a client can. Every context asks for client certificates
alike, and the connection is told again after a switch: no name is a way around `client_ca`. A session is resumed within one
`ServedNames` only: ticket keys are made with it, so none outlives a change of certificates or of the CA.

What strangers send is looked up, never remembered. Callbacks from OpenSSL are Python's, so W^X policies
(MemoryDenyWriteExecute) must stay off (pyca/pyopenssl#873); one that fails is logged and fails its handshake.
Called by server_tls.py. Durations are seconds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL
from twisted.logger import Logger
from twisted.python.failure import Failure

from lbsvc.config.certificates import Authorities, Certificate
from lbsvc.config.schema import ListenerTls

_log = Logger()
_lib, _ffi = Binding.lib, Binding.ffi

#: For TLS 1.2, where nothing is configured: forward secrecy and AEAD, in Mozilla's order.
CIPHERS: Final = ":".join(
    f"ECDHE-{kind}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for kind in ("ECDSA", "RSA")
)

#: How long a session can be resumed. A client certificate is not judged again when it is. Tickets are the client's to
#: keep; for those of TLS 1.2 who know none OpenSSL remembers 20,480 sessions at most (1 KiB each).
SESSION_LIFETIME: Final = 3600
CLIENT_SESSION_LIFETIME: Final = 300

#: How many of the protocols that a client offers are looked at.
MOST_PROTOCOLS: Final = 64

_OPTIONS: Final = SSL.OP_NO_COMPRESSION | _lib.SSL_OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE
#: Idle connections keep no buffers; what the CA file holds is for judging clients, never sent as a chain of ours.
_MODE: Final = SSL.MODE_RELEASE_BUFFERS | 0x8  # SSL_MODE_NO_AUTO_CHAIN

_VERSIONS: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ADDRESS: Final = re.compile(r"[0-9.]*")


def normal_name(asked: bytes | None) -> str:
    """A name of SNI in lower case, without a dot at its end; "" for none, and for what is no host name."""
    if not asked or len(asked) > 254:
        return ""
    name = asked.decode("ascii", "replace").lower().removesuffix(".")
    return name if _HOST.fullmatch(name) and not _ADDRESS.fullmatch(name) else ""


class ServedNames:
    """One context for each set of certificates that go together, by the names that they are for.

    Raises SSL.Error where OpenSSL does not want what is configured.
    """

    def __init__(
        self, settings: ListenerTls, certificates: Sequence[Certificate], authorities: Authorities | None
    ) -> None:
        self._settings = settings
        self._authorities = authorities
        self._verify = SSL.VERIFY_NONE
        if authorities is not None:
            self._verify = SSL.VERIFY_PEER
            if settings.client_auth != "optional":
                self._verify |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        self._session_id = os.urandom(16)
        made: dict[tuple[Certificate, ...], SSL.Context] = {}

        def context(group: tuple[Certificate, ...]) -> SSL.Context:
            if group not in made:
                made[group] = self._make(group)
            return made[group]

        #: for clients that name nobody, or nobody whom we know
        self.default = context(_first(certificates))
        self._by_name = {name: context(group) for name, group in _groups(certificates).items()}
        #: what is left where choosing fails: no certificate, hence no handshake
        self._nobody = self._make(())

    def choose(self, connection: SSL.Connection) -> None:
        """OpenSSL has read a client's hello: switch to the certificate of the name that it asks for."""
        try:
            name = normal_name(connection.get_servername())
            found = self._by_name.get(name)
            if found is None:
                found = self._by_name.get(f"*.{name.partition('.')[2]}", self.default)
            if found is not connection.get_context():
                self._switch(connection, found)
        except Exception:  # OpenSSL cannot be told: it would go on with what it has
            _log.failure("choosing a certificate failed")
            self._switch(connection, self._nobody)

    def _switch(self, connection: SSL.Connection, context: SSL.Context) -> None:
        connection.set_context(context)
        # What is asked of clients does not come with a context that is switched to.
        connection.set_verify(self._verify)

    def _make(self, group: tuple[Certificate, ...]) -> SSL.Context:
        settings = self._settings
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(_VERSIONS[settings.min_version])
        context.set_options(_OPTIONS)
        context.set_mode(_MODE)
        context.set_cipher_list((settings.ciphers or CIPHERS).encode())
        for certificate in group:
            certificate.use_in(context)
        context.set_verify(self._verify)
        if self._authorities is not None:
            self._authorities.trust_in(context)
            for authority in self._authorities.certificates:
                context.add_client_ca(authority)
        context.set_session_id(self._session_id)
        context.set_session_cache_mode(SSL.SESS_CACHE_SERVER)
        context.set_timeout(SESSION_LIFETIME if self._authorities is None else CLIENT_SESSION_LIFETIME)
        offered = tuple(name.encode() for name in settings.alpn)
        if b"http/1.1" in offered and b"http/1.0" not in offered:
            offered += (b"http/1.0",)  # curl --http1.0 offers nothing else; any HTTP/1 is spoken alike
        if offered:
            _lib.SSL_CTX_set_alpn_select_cb(context._context, _alpn_choice(offered), _ffi.NULL)
        # On each of them: after a HelloRetryRequest the callback of the context that was switched to is called. And a
        # connection, which knows only its last context, must keep the callbacks of the first one alive, too.
        context.set_tlsext_servername_callback(self.choose)
        context.set_app_data(self)
        return context


def _first(certificates: Sequence[Certificate]) -> tuple[Certificate, ...]:
    """The first certificate, and those of other kinds that are for all of its names."""
    first = certificates[0]
    names = set(first.names)
    return _of_each_kind([first, *(each for each in certificates[1:] if names and names <= set(each.names))])


def _groups(certificates: Iterable[Certificate]) -> dict[str, tuple[Certificate, ...]]:
    """For each name the certificates that are for it, one of each kind. Clients do not ask for addresses."""
    found: dict[str, list[Certificate]] = {}
    for certificate in certificates:
        for name in certificate.names:
            found.setdefault(name, []).append(certificate)
    return {name: _of_each_kind(group) for name, group in found.items()}


def _of_each_kind(certificates: Iterable[Certificate]) -> tuple[Certificate, ...]:
    chosen: dict[str, Certificate] = {}
    for certificate in certificates:
        chosen.setdefault(certificate.kind, certificate)
    return tuple(chosen.values())


@lru_cache(None)
def _alpn_choice(offered: tuple[bytes, ...]) -> Any:
    """OpenSSL's callback that takes the first of ours that a client offers; none: go on without.

    pyOpenSSL's own takes time by the square of what a client sends, which may be 64 KiB (27 ms). It lives for ever, as
    some context may.
    """
    ours = [(name, _ffi.new("unsigned char[]", name)) for name in offered]

    def select(ssl: Any, out: Any, outlen: Any, theirs: Any, length: int, arg: Any) -> int:
        asked = _protocols(bytes(_ffi.buffer(theirs, length)))
        for name, buffer in ours:
            if name in asked:
                out[0] = buffer
                outlen[0] = len(name)
                return int(_lib.SSL_TLSEXT_ERR_OK)
        return int(_lib.SSL_TLSEXT_ERR_ALERT_FATAL)  # no_application_protocol (RFC 7301, 3.2)

    def fail(kind: Any, error: Any, trace: Any) -> None:
        _log.failure("choosing a protocol failed", Failure(error, kind, trace))

    signature = "int (*)(SSL *, unsigned char **, unsigned char *, const unsigned char *, unsigned int, void *)"
    callback: Callable[..., Any] = _ffi.callback(
        signature, select, error=int(_lib.SSL_TLSEXT_ERR_ALERT_FATAL), onerror=fail
    )
    return callback


def _protocols(text: bytes) -> set[bytes]:
    """The names of a list of protocols, each of which stands behind its length."""
    found: set[bytes] = set()
    at = 0
    for _ in range(MOST_PROTOCOLS):
        if at >= len(text):
            break
        end = at + 1 + text[at]
        found.add(text[at + 1 : end])
        at = end
    return found
