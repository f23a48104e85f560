"""How `tls` is read, of listeners and of pools, and what is found in the files that it names.

Promises: what comes out can be used: each file has been read, each certificate fits its key, and OpenSSL takes the ciphers;
what is wrong with a file is said at the key that names it. Paths are absolute; one that is written relative is relative to
the folder of the configuration. An expired certificate is no mistake but a note: one of many must not stop a restart. To
which backends of a pool TLS is spoken is for securing.py to say. Called by listeners.py and pools.py; certificates.py reads
the files; net/server_tls.py and net/client_tls.py obey.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from typing import Any, Final

from OpenSSL import SSL

from lbsvc.config import document
from lbsvc.config.addresses import AddressError, parse_host
from lbsvc.config.certificates import ENDING, Certificate, CertificateFault, day, load_ca, load_pair
from lbsvc.config.document import spell
from lbsvc.config.hints import quoted
from lbsvc.config.protocols import alpn_hint
from lbsvc.config.schema import CertificateFiles, ListenerTls, PoolTls
from lbsvc.config.shapes import NULL, OFF, SOME_TEXT, Of, either, like, list_of, one_of, shaped
from lbsvc.config.values import duration, matching, nullable, nullable_text, text, word, words, yes_no
from lbsvc.config.walk import Refused, Section, Spot, listing

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_VERSIONS: Final = ("1.2", "1.3")
#: What we can speak on an http listener once ALPN has agreed on it.
_HTTP: Final = ("h2", "http/1.1", "http/1.0")
#: What stands between the elements of a cipher string, and before one that takes away or moves.
_BETWEEN: Final = re.compile(r"[:, ;]+")
_LESS: Final = ("!", "-", "+")
#: Of a file that is named by a text from elsewhere.
_UNREAD: Final = "is not read here: `twist loadbalancer --check` does that, where the file is"


# files


@shaped(SOME_TEXT)
def _file(spot: Spot) -> str:
    found = text(spot)
    if not found or _CONTROL.search(found):
        spot.expect("the name of a file")
    path = os.path.join(os.path.dirname(spot.walk.filename), found)
    # Not in its shortest form: behind a symbolic link, ".." leads elsewhere than it looks.
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


def _named(spot: Spot) -> str:
    """Which file was named here, and where a relative one was looked for; a variable's value is not shown."""
    got = spot.got()
    if spot.origin or os.path.isabs(spot.text() or ""):
        return got
    folder = os.path.abspath(os.path.dirname(spot.walk.filename))
    return f"{got[:-1]}, relative to {quoted(folder)[1:-1]})"


@shaped(SOME_TEXT)
def _authorities(spot: Spot) -> str:
    """A file of certificates that others are verified by."""
    path = _file(spot)
    if not spot.walk.reads_files:
        spot.walk.note(spot.path, _UNREAD)
        return path
    try:
        found = load_ca(path)
    except CertificateFault as fault:
        spot.refuse(fault.message + _named(spot))
    _tell(spot, found.notes)
    last = max(certificate.not_valid_after_utc.timestamp() for certificate in found.certificates)
    if last < spot.walk.wall():
        spot.walk.note(spot.path, f"expired on {day(last)}: nobody can be verified by it")
    return path


def _pair(spot: Spot, found: dict[str, Any], *, is_client: bool = False) -> tuple[CertificateFiles, Certificate | None]:
    """The certificate of `cert` and `key`, or of the text that stands here; without a key the one file holds both."""
    cert = spot if spot.is_scalar else spot.at("cert")
    has_key = found.get("key") is not None
    files = CertificateFiles(found["cert"], found["key"] if has_key else found["cert"])
    if not spot.walk.reads_files:
        spot.walk.note(cert.path, _UNREAD)
        return files, None
    try:
        certificate = load_pair(files, is_client=is_client)
    except CertificateFault as fault:
        is_key = fault.which == "key"
        place = spot.at("key") if is_key and has_key else cert
        alone = "; it has to hold the key too where there is no key" if is_key and not has_key else ""
        place.refuse(fault.message + alone + _named(place))
    _tell(cert, certificate.notes)
    what_is_done = f"it is {'shown' if is_client else 'served'} all the same"
    now = spot.walk.wall()
    if certificate.not_after < now:
        spot.walk.note(cert.path, f"expired on {day(certificate.not_after)}; {what_is_done}")
    elif certificate.not_after - now <= ENDING:
        spot.walk.note(cert.path, f"expires soon, on {day(certificate.not_after)}")
    elif certificate.not_before > now:
        spot.walk.note(cert.path, f"is not valid before {day(certificate.not_before)}; {what_is_done}")
    return files, certificate


def _tell(spot: Spot, notes: Iterable[str]) -> None:
    for note in notes:
        spot.walk.note(spot.path, note)


# listeners


def _certificate(spot: Spot, found: dict[str, Any]) -> tuple[CertificateFiles, Certificate | None]:
    if "key" in spot.entries() and "key" not in found:
        raise Refused
    return _pair(spot, found)


def _one_or_more(of: Of) -> dict[str, Any]:
    """A list, or one alone, be it a mapping or a text."""
    one = of(_CERTIFICATE, "[]")
    return either({"type": "array", "items": one, "minItems": 1}, one)


_CERTIFICATE: Final = Section(
    {"cert": _file, "key": nullable_text(_file)},
    _certificate,
    required=("cert",),
    short=shaped(like(_file))(lambda spot: _pair(spot, {"cert": _file(spot)})),
)


@shaped(_one_or_more)
def _certificates(spot: Spot) -> dict[CertificateFiles, str]:
    """Those that are here, in their order, each with the kind of its key."""
    if spot.is_null or spot.is_hollow:
        spot.refuse("needs at least one certificate")
    one = isinstance(spot.node, document.Mapping)
    items = [spot] if one else [spot.below(entry, path) for entry, path in spot.items(single=True)]
    found: dict[CertificateFiles, int] = {}
    kinds: dict[CertificateFiles, str] = {}
    names: set[tuple[str, str]] = set()  # names that are served, and the kinds of keys by which they are
    for i, child in enumerate(items):
        try:
            files, certificate = _CERTIFICATE(child)
        except Refused:
            continue
        at = found.setdefault(files, i)
        if at != i:
            child.wrong(f"is the same as certificates[{at}]")
            continue
        if certificate is None:
            kinds[files] = ""
            continue
        kinds[files] = certificate.kind
        more = {(name, certificate.kind) for name in certificate.names}
        if more and more <= names:
            spot.walk.note(child.path, "is never served: others before it have all its names")
        names |= more
    return kinds


@shaped(one_of("1.2", "1.3", 1.2, 1.3))
def _min_version(spot: Spot) -> str:
    """1.2 or 1.3, also as the numbers that YAML takes them for."""
    found = str(spot.value) if isinstance(spot.value, float) else spot.text()
    if found not in _VERSIONS:
        # Without a hint: of 1.1, the nearer one of them is not what was meant.
        spot.expect('"1.2" or "1.3"')
    return found


_cipher_string = matching(re.compile(r"[\x20-\x7e]+"), "an OpenSSL cipher string, such as ECDHE+AESGCM:!RSA")


def _are_ciphers(written: str) -> bool:
    """Whether OpenSSL finds a cipher by this."""
    try:
        SSL.Context(SSL.TLS_METHOD).set_cipher_list(written.encode("ascii"))
    except SSL.Error:
        return False
    return True


@shaped(like(_cipher_string))
def _ciphers(spot: Spot) -> str:
    """A cipher string that means something, as does each word of it: OpenSSL itself passes over those it does not know."""
    found = _cipher_string(spot)
    for element in _BETWEEN.split(found):
        name = element.partition("@")[0]
        if name and not name.startswith(_LESS) and not _are_ciphers(name):
            why = f"OpenSSL knows no cipher {quoted(name)}" if not spot.origin else "OpenSSL does not know all of these"
            if name.startswith("TLS_") and "_WITH_" not in name:
                why += ": this is about TLS 1.2; the ciphers of 1.3 are always on"
            spot.refuse(why + (spot.got() if spot.origin else ""))
    if not _are_ciphers(found):
        spot.refuse(f"leaves no cipher, or is no cipher string{spot.got()}")
    return found


def _proves(cipher: str) -> str:
    """By which kind of certificate a cipher of OpenSSL's proves who we are.

    "" for none, "-" for what cannot be spoken here: keys that were shared before, and DSA.
    """
    parts = cipher.split("-")
    if not {"PSK", "SRP", "DSS"}.isdisjoint(parts):
        return "-"
    if not {"ADH", "AECDH"}.isdisjoint(parts):
        return ""
    return "ecdsa" if "ECDSA" in parts else "rsa"


def _can_serve(written: str, kinds: Iterable[str]) -> bool:
    """Whether TLS 1.2 can be spoken by these ciphers with certificates of these kinds (EdDSA goes with ECDSA's)."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_cipher_list(written.encode("ascii"))
    served = {"", *("rsa" if kind == "rsa" else "ecdsa" for kind in kinds)}
    ciphers = SSL.Connection(context, None).get_cipher_list()
    return any(_proves(cipher) in served for cipher in ciphers if not cipher.startswith("TLS_"))


_protocol = matching(re.compile(r"[\x21-\x7e]+"), "the name of a protocol, such as http/1.1", 255)


@shaped(lambda of: either(list_of(_protocol, single=True)(of), NULL, OFF))
def _alpn(spot: Spot) -> tuple[str, ...]:
    if spot.is_null or spot.is_off:
        return ()
    return tuple(dict.fromkeys(listing(_protocol, single=True)(spot)))


@shaped({"required": ["certificates"]})
def _listener_tls(spot: Spot, found: dict[str, Any]) -> ListenerTls:
    entries, note = spot.entries(), spot.walk.note
    if "certificates" not in entries:
        spot.missing("certificates")
    kinds: dict[CertificateFiles, str] = found.pop("certificates", {})
    tls = ListenerTls(tuple(kinds), **found)
    is_unread = "client_ca" in entries and "client_ca" not in found
    if "client_auth" in entries and tls.client_ca is None and not is_unread:
        note(spell(spot.path, "client_auth"), "does nothing without client_ca: no client is asked for a certificate")
    if tls.ciphers is not None and tls.min_version == "1.3":
        note(spell(spot.path, "ciphers"), "does nothing where min_version is 1.3: it is about TLS 1.2")
    elif tls.ciphers is not None and kinds and spot.walk.reads_files and not _can_serve(tls.ciphers, kinds.values()):
        have = words(tuple(sorted(set(kinds.values()))), "and")
        why = f"none of these goes with a certificate that is here ({have})"
        note(spell(spot.path, "ciphers"), f"{why}: no client of TLS 1.2 can connect")
    return tls


_LISTENER_TLS: Final[Section[ListenerTls | None]] = Section(
    {
        "certificates": _certificates,
        "min_version": _min_version,
        "ciphers": nullable_text(_ciphers),
        "alpn": _alpn,
        "client_ca": nullable_text(_authorities),
        "client_auth": word("required", "optional"),
        "reload_interval": nullable(duration(low=0.1)),
    },
    _listener_tls,
    off=(None,),
)
#: A section; null is none.
LISTENER_TLS: Final = nullable_text(_LISTENER_TLS)


def check_alpn(spot: Spot, tls: ListenerTls, is_http: bool) -> None:
    """Refuse what an http listener cannot speak, and slips in the names of HTTP on tcp; `spot` is that of its `tls`."""
    if all(protocol in _HTTP for protocol in tls.alpn):
        return
    place = spot.at("alpn")
    for entry, path in place.items(single=True):
        child = place.below(entry, path)
        if child.text() in tls.alpn and child.text() not in _HTTP:
            hint, is_slip = alpn_hint(child.text() or "")
            if is_http:
                child.wrong(f"must be {words(_HTTP)} where protocol is http{child.got(_HTTP, hint)}")
            elif is_slip:  # behind TLS on tcp there may be any protocol, but clients offer none by this name
                child.wrong(f"is no name that clients know HTTP by{child.got((), hint)}")


# pools


@shaped(SOME_TEXT)
def _server_name(spot: Spot) -> str:
    found = text(spot)
    try:
        if ":" in found and "%" not in found:  # a scope belongs to one machine's interfaces
            return str(ipaddress.IPv6Address(found))
        return parse_host(found).removesuffix(".")
    except (AddressError, ValueError):
        spot.expect("a host name or an IP address, without a port")


def _pool_tls(spot: Spot, found: dict[str, Any]) -> PoolTls:
    entries, note = spot.entries(), spot.walk.note
    client: CertificateFiles | None = None
    if found.get("cert") is not None and ("key" in found or "key" not in entries):
        client, _ = _pair(spot, found, is_client=True)
    elif found.get("key") is not None and ("cert" in found or "cert" not in entries):
        spot.at("key").wrong("needs cert: a key alone shows nobody anything")
    tls = PoolTls(found.get("verify", True), found.get("ca"), found.get("server_name"), client)
    if not tls.verify:
        note(spell(spot.path, "verify"), "whoever answers at a backend's address is believed to be it")
        if tls.ca is not None:
            note(spell(spot.path, "ca"), "does nothing where verify is false")
    return tls


_POOL_TLS: Final[Section[PoolTls | None]] = Section(
    {
        "verify": yes_no,
        "ca": nullable_text(_authorities),
        "server_name": nullable_text(_server_name),
        "cert": nullable_text(_file),
        "key": nullable_text(_file),
    },
    _pool_tls,
    off=(None,),
)
#: A section; null is none.
POOL_TLS: Final = nullable_text(_POOL_TLS)
