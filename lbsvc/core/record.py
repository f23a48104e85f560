"""One finished request or connection, as the roads hand it to the access log.

Promises: nothing but an order of fields. The hot path builds a plain tuple in this order (an `AccessRecord`), since a tuple
display costs a tenth of any class; `Record` names the same fields for tests and for whoever reads. Built by the roads
(net/relay.py, http/settling.py), read by observe/accesslog.py; imports nothing.

Units: `ts` is wall-clock seconds (Unix) at the end of the request; every `t_*` is seconds on the monotonic clock from the
request's beginning to that milestone, None when it was never reached. `t_connect` is there where the last try's connection
was dialled, `t_first` once the head of an answer came from a backend: an answer of ours has neither. Sizes are bytes, heads
included. Strings are ours (names, IP literals without port); bytes are what a client sent, verbatim and not to be trusted.

`tries` are backend and reason of each try, in order, where a try failed and the request went on; else None. After a retry by
status the reason of that try is the status ("503").

`t_handshake` is no milestone: it is what came before the request, from the connection's accept to the end of its PROXY
header and TLS handshake. Of the requests of a connection only the first has it; `tls` they all have. A connection that
fails there, on a listener of either protocol, has a record of its own: protocol "tcp", no request, and all that it took
in `t_total`.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

#: Backend name and reason word of each try.
Tries: TypeAlias = tuple[tuple[str, str], ...]

AccessRecord: TypeAlias = tuple[
    float,  # ts
    bytes,  # id
    str,  # listener
    str,  # protocol
    str,  # client
    str,  # peer
    bytes | None,  # method
    bytes | None,  # host
    bytes | None,  # target
    int,  # status
    int,  # bytes_in
    int,  # bytes_out
    str | None,  # route
    str | None,  # pool
    str | None,  # backend
    int,  # attempts
    str,  # reason
    float | None,  # t_queue
    float | None,  # t_connect
    float | None,  # t_first
    float | None,  # t_total
    bytes | None,  # user_agent
    bytes | None,  # referer
    Tries | None,  # tries
    str | None,  # tls
    float | None,  # t_handshake
    int | None,  # grpc_status
]


class Record(NamedTuple):
    """The fields of an `AccessRecord` by name; an instance of it is one."""

    ts: float
    id: bytes
    listener: str
    protocol: str  # "HTTP/1.0", "HTTP/1.1" or "tcp"
    client: str  # who asked, as far as we believe it; an IP literal, or "unix"
    peer: str  # the connection's other end; an IP literal, or "unix"
    method: bytes | None = None
    host: bytes | None = None
    target: bytes | None = None  # with its query, as it came: before any rewriting
    status: int = 0  # what the client was sent; 0: nothing was (http: logged as 499)
    bytes_in: int = 0
    bytes_out: int = 0
    route: str | None = None
    pool: str | None = None
    backend: str | None = None
    attempts: int = 0
    reason: str = "ok"
    t_queue: float | None = None
    t_connect: float | None = None
    t_first: float | None = None
    t_total: float | None = None
    user_agent: bytes | None = None
    referer: bytes | None = None
    tries: Tries | None = None
    tls: str | None = None  # "TLSv1.2" or "TLSv1.3" where TLS ended here
    t_handshake: float | None = None
    grpc_status: int | None = None  # of a call of gRPC that was told how it ended
