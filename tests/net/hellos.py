"""ClientHellos for tests: real ones, of programs and of OpenSSL in memory, and such as nobody should send.

`hello` builds one piece by piece; `records` cuts a message into TLS records; `openssl_hello` asks pyOpenSSL for one.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

from OpenSSL import SSL

#: `openssl s_client -servername www.Example.com -alpn h2,http/1.1` (OpenSSL 3.0)
S_CLIENT = base64.b64decode(
    "FgMBAU4BAAFKAwMPUjSGd+s5CKRLjTGQVmV3sI0xfvfZTziOE0GRpzsCQCAw3xrFU6xdOmePezwnw2zAx16BZGNXp8YlkP6b98Z+gQA+EwIT"
    "AxMBwCzAMACfzKnMqMyqwCvALwCewCTAKABrwCPAJwBnwArAFAA5wAnAEwAzAJ0AnAA9ADwANQAvAP8BAADDAAAAFAASAAAPd3d3LkV4YW1w"
    "bGUuY29tAAsABAMAAQIACgAWABQAHQAXAB4AGQAYAQABAQECAQMBBAAjAAAAEAAOAAwCaDIIaHR0cC8xLjEAFgAAABcAAAANACoAKAQDBQMG"
    "AwgHCAgICQgKCAsIBAgFCAYEAQUBBgEDAwMBAwIEAgUCBgIAKwAJCAMEAwMDAgMBAC0AAgEBADMAJgAkAB0AIE6ioIlc5Rp3/tv1Dgoxmzzp"
    "/vPmwyEcPrdYHLneoRJ8"
)
#: `openssl s_client -noservername -tls1_2` (OpenSSL 3.0)
S_CLIENT_NAMELESS = base64.b64decode(
    "FgMBALcBAACzAwPokkLqnLCP98oDEj/hJjv1cnjXzg5XAjEEsVjUMIVTtQAAOMAswDAAn8ypzKjMqsArwC8AnsAkwCgAa8AjwCcAZ8AKwBQA"
    "OcAJwBMAMwCdAJwAPQA8ADUALwD/AQAAUgALAAQDAAECAAoADAAKAB0AFwAeABkAGAAjAAAAFgAAABcAAAANACoAKAQDBQMGAwgHCAgICQgK"
    "CAsIBAgFCAYEAQUBBgEDAwMBAwIEAgUCBgI="
)
#: `curl https://api.example.org/` (curl 7.88.1, OpenSSL 3.0), which pads
CURL = base64.b64decode(
    "FgMBAgABAAH8AwMYoMbYUrkpgk/r5T7opeR5R57rEBlXYgmM2tm3pTN9QSDqubMXGMItUwTi26v1NV+jcnwGxNg2eUn096KTjrqtOAA+EwIT"
    "AxMBwCzAMACfzKnMqMyqwCvALwCewCTAKABrwCPAJwBnwArAFAA5wAnAEwAzAJ0AnAA9ADwANQAvAP8BAAF1AAAAFAASAAAPYXBpLmV4YW1w"
    "bGUub3JnAAsABAMAAQIACgAWABQAHQAXAB4AGQAYAQABAQECAQMBBAAQAA4ADAJoMghodHRwLzEuMQAWAAAAFwAAADEAAAANACoAKAQDBQMG"
    "AwgHCAgICQgKCAsIBAgFCAYEAQUBBgEDAwMBAwIEAgUCBgIAKwAJCAMEAwMDAgMBAC0AAgEBADMAJgAkAB0AIFLkgqJ/qoHQ332+daCW8BH/"
    "Fb/dFDtjsJik1adPrU9PABUArg=="
) + bytes(174)

SERVER_NAME, ALPN, KEY_SHARE, PADDING = 0, 16, 51, 21


def sized(size: int, octets: bytes) -> bytes:
    """A vector: its length in `size` bytes, and what it holds."""
    return len(octets).to_bytes(size, "big") + octets


def server_name(name: bytes, kind: int = 0) -> tuple[int, bytes]:
    """The extension that asks for a name."""
    return SERVER_NAME, sized(2, bytes([kind]) + sized(2, name))


def alpn(*names: bytes) -> tuple[int, bytes]:
    """The extension that offers protocols."""
    return ALPN, sized(2, b"".join(sized(1, name) for name in names))


def hello(
    *extensions: tuple[int, bytes],
    version: bytes = b"\x03\x03",
    session: bytes = b"",
    ciphers: bytes = b"\x13\x01",
    compression: bytes = b"\x00",
    tail: bytes | None = None,
) -> bytes:
    """A message of the handshake; `tail` is written in place of the extensions."""
    written = sized(2, b"".join(kind.to_bytes(2, "big") + sized(2, octets) for kind, octets in extensions))
    body = version + bytes(32) + sized(1, session) + sized(2, ciphers) + sized(1, compression)
    body += written if tail is None else tail
    return b"\x01" + sized(3, body)


def records(message: bytes, sizes: Iterable[int] = (16384,), version: bytes = b"\x03\x01") -> bytes:
    """A message in records of these sizes, the last of which goes on."""
    found, at, size = [], 0, 16384
    cuts = iter(sizes)
    while at < len(message):
        size = next(cuts, size)
        found.append(b"\x16" + version + sized(2, message[at : at + size]))
        at += size
    return b"".join(found)


def named(name: str, *more: tuple[int, bytes]) -> bytes:
    """A whole ClientHello that asks for a name."""
    return records(hello(server_name(name.encode()), *more))


def openssl_hello(name: str | None, protocols: Sequence[bytes] = (), version: int = SSL.TLS1_3_VERSION) -> bytes:
    """What OpenSSL sends that speaks this version at most."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(version)
    if protocols:
        context.set_alpn_protos(list(protocols))
    client = SSL.Connection(context, None)
    if name is not None:
        client.set_tlsext_host_name(name.encode())
    client.set_connect_state()
    try:
        client.do_handshake()
    except SSL.WantReadError:
        pass
    return client.bio_read(65536)
