"""Is this header line lawful, what kind is it, and what does a whole section say (RFC 9110, 5; RFC 9112, 5 and 6).

Promises: a line is judged by its bytes alone; a section either has one meaning or is refused with ProtocolViolation, whose
text never repeats the peer's bytes. Called by h1 for both roles. Nothing here knows which side it reads, but for the
`Rules` it is given.

Why a memory of lines: header lines repeat from request to request, across connections. A line that has been judged is
not judged again: a look-up costs a tenth of what judging does (tests/bench/codec_cost.py, `lines` against `new`).
Only lines of well-known names without secrets are remembered (nobody shall learn by timing whether a token has been seen
before), short ones, and a bounded number of them. Of all others the name alone is, which halves their cost: values differ
from message to message, names do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from typing import Final

from lbsvc.errors import ProtocolViolation
from lbsvc.http.messages import CHUNKED, UNSAID, Field, Section

# Kinds of field. PLAIN goes on as it is; the others mean something to us.
PLAIN: Final = 0
DROPPED: Final = 1  # hop-by-hop: ends here
HOST: Final = 2
LENGTH: Final = 3
CODING: Final = 4
CONNECTION: Final = 5
EXPECT: Final = 6
IDENTITY: Final = 7  # what only a trusted proxy may say about the client
REQUEST_ID: Final = 8
DATE: Final = 9
UNDERSCORE: Final = 10
BAD_HOST: Final = 11
UPGRADE: Final = 12
SHADOW: Final = 13  # an underscored name that a backend may take for one of the kinds above

_KINDS: Final[dict[bytes, int]] = {
    b"keep-alive": DROPPED,
    b"proxy-connection": DROPPED,
    b"proxy-authorization": DROPPED,
    b"proxy-authenticate": DROPPED,
    b"te": DROPPED,
    b"upgrade": UPGRADE,
    b"http2-settings": DROPPED,
    b"host": HOST,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": CONNECTION,
    b"expect": EXPECT,
    b"forwarded": IDENTITY,
    b"x-real-ip": IDENTITY,
    b"x-forwarded": IDENTITY,
    b"proxy": IDENTITY,  # it would become HTTP_PROXY in a CGI's environment
    # Where a client's certificate is told: RFC 9440, and Azure's word; the others are in _IDENTITY_BEGINNINGS.
    **dict.fromkeys((b"client-cert", b"client-cert-chain", b"x-arr-clientcert"), IDENTITY),
    # What other proxies call the client's address, and what some frameworks take for the URL in place of the real one.
    **dict.fromkeys((b"true-client-ip", b"x-client-ip", b"x-cluster-client-ip", b"cf-connecting-ip"), IDENTITY),
    **dict.fromkeys((b"fastly-client-ip", b"x-original-forwarded-for", b"x-original-host"), IDENTITY),
    **dict.fromkeys((b"x-original-url", b"x-rewrite-url", b"x-host"), IDENTITY),
    **dict.fromkeys((b"client-ip", b"x-originating-ip", b"x-remote-ip", b"x-remote-addr", b"x-proxyuser-ip"), IDENTITY),
    **dict.fromkeys(
        (b"x-client-verify", b"x-client-dn", b"x-client-cn", b"x-client-subject", b"x-client-issuer"), IDENTITY
    ),
    **dict.fromkeys((b"x-client-serial", b"x-client-fingerprint", b"x-clientcert", b"x-ssl"), IDENTITY),
    b"x-request-id": REQUEST_ID,
    b"date": DATE,
}
#: What begins like this is IDENTITY too: behind `x-forwarded-`, the names under which proxies (we, HAProxy, nginx, AWS) tell
#: of a client's certificate.
_IDENTITY_BEGINNINGS: Final = (b"x-forwarded-", b"x-client-cert", b"x-ssl-", b"ssl-client-", b"x-amzn-mtls-")
#: `Section.body` while a section is read: a transfer coding that we do not know, the last word on its length.
_FOREIGN: Final = -4

#: Fields that Connection may not take away: without them a message would mean something else.
_PROTECTED: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie"})

_TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#: visible ASCII, space, tab and obs-text (RFC 9110, 5.5); every control byte but tab is refused
_VALUE: Final = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
_HOST_BYTES: Final = b"!$&'()*+-.;=_~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_REQUEST_ID_BYTES: Final = bytes(range(0x21, 0x7F))

#: What some readers make one of: dash, underscore, dot.
DASHED: Final = bytes.maketrans(b"_.", b"--")

_memory: dict[bytes, Field] = {}
_MEMORY_LINES: Final = 4096
_date: list[bytes] = [b""]  # the Date line that is remembered
_MEMORY_LINE_SIZE: Final = 256
#: Names as they are spelled, of whatever lines: what `_judge_name` has said.
_names: dict[bytes, tuple[bytes, int, bool]] = {}
_NAMES: Final = 1024
_NAME_SIZE: Final = 64
_REMEMBERED: Final = frozenset(
    b"accept accept-charset accept-encoding accept-language accept-ranges access-control-allow-origin age allow "
    b"cache-control connection content-disposition content-encoding content-language content-length content-type date dnt "
    b"etag expires host keep-alive last-modified origin pragma priority referrer-policy sec-ch-ua sec-ch-ua-mobile "
    b"sec-ch-ua-platform sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user server strict-transport-security te "
    b"transfer-encoding upgrade-insecure-requests user-agent vary via x-content-type-options x-frame-options "
    b"x-powered-by x-requested-with x-xss-protection".split()
)


@dataclass(frozen=True)
class Rules:
    """How strict a role is: limits in bytes and lines; who is to blame, and with which status it is answered."""

    header_size: int = 32 * 1024
    header_count: int = 100
    underscores: str = "keep"  # drop | keep | reject
    request: bool = True

    def violation(self, detail: str, status: int = 400, reason: str = "bad_request") -> ProtocolViolation:
        """The error for a breach in this role: a backend's nonsense is 502 to the client, whatever it was."""
        if self.request:
            return ProtocolViolation(status, detail, reason=reason)
        return ProtocolViolation(502, detail, reason="upstream_protocol", blame="upstream")


def is_token(text: bytes) -> bool:
    """RFC 9110, 5.6.2."""
    return bool(text) and not text.translate(None, _TOKEN)


def is_authority(text: bytes) -> bool:
    """A host and perhaps a port (RFC 3986, 3.2.2 and 3.2.3), without userinfo.

    No percent-escapes, which nobody needs and which would walk around a route's host. Not an empty one: an http URL must
    have a host (RFC 9110, 4.2.1), and backends would each put their own in its place. No comma, though the grammar has it:
    it is what remains of two Host fields that somebody joined. No empty labels but for a last dot: `..` is a host that
    backends may look for in their file system, and no name in DNS.
    """
    if text.startswith(b"["):
        host, bracket, rest = text[1:].partition(b"]")
        try:
            IPv6Address(host.decode("ascii"))
        except (AddressValueError, UnicodeDecodeError):
            return False
        colon, number = rest[:1], rest[1:]
        if b"%" in host or not bracket:
            return False
    else:
        host, colon, number = text.partition(b":")
        if not host or host.translate(None, _HOST_BYTES) or host.startswith(b".") or b".." in host:
            return False
    if not colon:
        return True
    return colon == b":" and (not number or (number.isdigit() and len(number) <= 5 and int(number) <= 65535))


def fields_of(lines: bytes, rules: Rules) -> tuple[Field, ...]:
    """Header lines of our own making, as fields."""
    return tuple(judge(line, rules) for line in lines.split(b"\r\n") if line)


def _kind(name: bytes) -> int:
    return IDENTITY if name.startswith(_IDENTITY_BEGINNINGS) else _KINDS.get(name, PLAIN)


def judge(line: bytes, rules: Rules) -> Field:
    """One header line without its CRLF. RFC 9112, 5: no space before the colon, no folding, no bare CR or LF, no NUL."""
    name, colon, value = line.partition(b":")
    known = _names.get(name) or _judge_name(name, rules)
    if not colon:
        raise rules.violation("a header line without a lawful name and colon")
    value = value.strip(b" \t")
    if value.translate(None, _VALUE):
        raise rules.violation("a control byte in a header value")
    lower, kind, is_remembered = known
    if kind == HOST and not is_authority(value):
        kind = BAD_HOST
    field = (lower, value, b"%b: %b\r\n" % (name, value), kind)
    if is_remembered and len(line) <= _MEMORY_LINE_SIZE:
        if kind == DATE:  # each second has its own: only the last one comes again
            _memory.pop(_date[0], None)
            _date[0] = line
        if len(_memory) >= _MEMORY_LINES:
            _memory.clear()
        _memory[line] = field
    return field


def _judge_name(name: bytes, rules: Rules) -> tuple[bytes, int, bool]:
    """A name as it is spelled: in lower case, its kind, and whether its lines are remembered."""
    if not name or name.translate(None, _TOKEN):
        raise rules.violation("a header line without a lawful name and colon")
    lower = name.lower()
    kind = _kind(lower)
    if kind == PLAIN:
        if b"_" in lower:
            kind = UNDERSCORE if _kind(lower.translate(DASHED)) == PLAIN else SHADOW
        elif b"." in lower and _kind(lower.translate(DASHED)) != PLAIN:
            kind = SHADOW  # PHP makes an underscore of the dot too
    elif kind == IDENTITY and (b"_" in lower or b"." in lower):
        kind = SHADOW  # who passes on what others say of `X-Client-Cert_Verified` may not know that it means something
    judged = (lower, kind, lower in _REMEMBERED)
    if len(name) <= _NAME_SIZE:
        if len(_names) >= _NAMES:
            _names.clear()
        _names[name] = judged
    return judged


def read_section(block: bytes, rules: Rules, minor: int) -> Section:
    """The header lines of a message, `block` without the last CRLF (may be empty); `minor` is the version's 0 or 1."""
    section = Section()
    connection: tuple[bytes, ...] = ()
    if block:
        lines = block.split(b"\r\n")
        if len(lines) > rules.header_count:
            if not block.count(b"\n") == block.count(b"\r") == len(lines) - 1:
                # Where a head comes in pieces this is seen before its lines are counted (h1.check_incomplete).
                raise rules.violation("a bare LF or CR in the head")
            raise rules.violation("more header lines than limits.header_count", 431, "too_large")
        fields = section.fields
        recall = _memory.get
        for line in lines:
            field = recall(line) or judge(line, rules)
            kind = field[3]
            if kind == PLAIN:
                fields.append(field)
            elif kind == DATE:
                section.has_date = True
                fields.append(field)
            elif kind == CONNECTION:
                connection += (field[1].lower(),)  # its names are looked up once all fields are known
            else:
                _read_special(field, section, rules, minor)
    if connection == (b"keep-alive",):
        section.keep_alive = True
        section.upgrade = False
    elif connection:
        _remove_nominated(section, connection, minor)
    elif section.upgrade:
        section.upgrade = False  # it takes both fields (RFC 9110, 7.8)
    if section.body == _FOREIGN:
        # Last, since a section with this and with a fault is a fault: 400.
        raise rules.violation("a transfer coding other than chunked", 501)
    wire = b"".join([f[2] for f in section.fields])
    section.wire = wire if section.body < 0 else b"%bContent-Length: %d\r\n" % (wire, section.body)
    return section


def _read_special(field: Field, section: Section, rules: Rules, minor: int) -> None:
    """A field that means something to us: take its meaning, and keep it only where it goes on."""
    _, value, _, kind = field
    if kind == HOST:
        if rules.request:
            if section.host is not None:
                raise rules.violation("two Host fields")
            section.host = value
    elif kind == BAD_HOST:
        if rules.request:
            raise rules.violation("a Host field that names no host")
    elif kind == LENGTH:
        if section.body != UNSAID:
            raise rules.violation("Content-Length twice, or beside Transfer-Encoding")
        if not value.isdigit() or len(value) > 18:
            raise rules.violation("a Content-Length that is not one decimal number")
        section.body = int(value)
    elif kind == CODING:
        if section.body != UNSAID:
            raise rules.violation("Transfer-Encoding twice, or beside Content-Length")
        if minor == 0:
            raise rules.violation("Transfer-Encoding in HTTP/1.0")
        section.body = CHUNKED if value.lower() == b"chunked" else _read_codings(value.lower(), rules)
    elif kind == EXPECT:
        if rules.request and minor and value:
            is_known = value.lower() == b"100-continue"
            section.expects_continue |= is_known
            section.unsupported |= not is_known
    elif kind == IDENTITY:
        (section.identity if rules.request else section.fields).append(field)
    elif kind == UPGRADE:
        names = [name.strip(b" \t") for name in value.lower().split(b",")]
        # A client may offer several; an answer names what the connection is from now on, which is one thing.
        section.upgrade = section.upgrade or (b"websocket" in names if rules.request else names == [b"websocket"])
    elif kind == REQUEST_ID:
        if 0 < len(value) <= 128 and not value.translate(None, _REQUEST_ID_BYTES):
            section.request_id = value
    elif kind in (UNDERSCORE, SHADOW):
        if rules.underscores == "reject":
            raise rules.violation("an underscore in a header name (limits.underscore_headers)")
        # What we frame by, replace or end here does not go on under another spelling, though others are kept: CGI and
        # WSGI make one name of both.
        if rules.underscores == "keep" and (kind == UNDERSCORE or not rules.request):
            section.fields.append(field)


def _read_codings(value: bytes, rules: Rules) -> int:
    """A Transfer-Encoding that is not just `chunked`: codings that we do not know, or nonsense about the one that we do."""
    names = [name.strip(b" \t") for name in value.split(b",")]
    if not all(map(is_token, names)) or b"chunked" in names[:-1] or b"identity" in names:
        raise rules.violation("a Transfer-Encoding that is not exactly chunked")
    return _FOREIGN


def _remove_nominated(section: Section, connection: tuple[bytes, ...], minor: int) -> None:
    """RFC 9110, 7.6.1: what Connection names ends here, and so does Connection itself, which is not in `fields` at all.

    Not so `identity`: it is for us, and where a trusted proxy passes on the Connection of a stranger, that one could make
    itself the proxy (`Connection: X-Forwarded-For`).
    """
    names = {name.strip(b" \t") for value in connection for name in value.split(b",")}
    section.close = b"close" in names
    section.keep_alive = b"keep-alive" in names
    section.upgrade = section.upgrade and b"upgrade" in names and minor > 0
    names -= _PROTECTED
    if b"date" in names:
        section.has_date = False  # it goes with the others, and the answer gets ours
    section.fields = [f for f in section.fields if f[0] not in names]


def nominated(head: bytes) -> set[bytes]:
    """The names that the Connection fields of a head take away, `head` as it came; a trailer cannot have them either."""
    names: set[bytes] = set()
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"connection":
            names.update(each.strip(b" \t") for each in value.lower().split(b","))
    return names
