"""Where a route leads, and what it does on the way: made once for each route, when the routing table is.

Promises: everything that can be made before a request comes is made here. `is_plain` says that a request needs nothing but
a backend of `upstreams`: the hot path asks no further. Made by routing.py, read by the exchange; never changed.
"""

from __future__ import annotations

from collections.abc import Callable

from lbsvc.config.schema import Fault
from lbsvc.core.books import RouteBooks
from lbsvc.core.split import Split
from lbsvc.http.edits import Edits
from lbsvc.http.limiting import RequestLimit
from lbsvc.http.messages import RequestHead, ResponseHead
from lbsvc.http.mirroring import Mirroring
from lbsvc.http.pooling import Upstreams

#: What a route answers by itself, from the request and the scheme (`http`) of its connection.
Answer = Callable[[RequestHead, bytes], tuple[ResponseHead, bytes]]


class Destination:
    """Where a route leads: to a pool (`upstreams`), to one of several destinations (`split`), or to an answer of our own."""

    __slots__ = (
        "answer",
        "body_size",
        "books",
        "deny",
        "edits",
        "fault",
        "is_drawn",
        "is_plain",
        "limit",
        "mirroring",
        "name",
        "pool",
        "split",
        "timeout",
        "upstreams",
    )

    def __init__(
        self,
        name: str,
        books: RouteBooks,
        upstreams: Upstreams | None,
        answer: Answer | None = None,
        *,
        body_size: int | None = None,
        deny: int | None = None,
        edits: Edits | None = None,
        fault: Fault | None = None,
        limit: RequestLimit | None = None,
        mirroring: Mirroring | None = None,
        split: Split[Destination] | None = None,
        timeout: float | None = None,
        is_drawn: bool = False,
    ) -> None:
        self.name = name
        self.books = books
        self.upstreams = upstreams
        self.pool = upstreams.pool.name if upstreams is not None else None
        self.answer = answer
        #: the limit in force on this route, the listener's or its own, in bytes
        self.body_size = body_size
        self.deny = deny
        self.edits = edits if edits is not None and not edits.is_empty else None
        self.fault = fault
        self.limit = limit
        self.mirroring = mirroring
        self.split = split
        #: one of several that the same request may lead to: nothing that is made for it can be remembered on a head
        self.is_drawn = is_drawn
        self.timeout = timeout
        special = (deny, self.edits, fault, mirroring, split, timeout)
        self.is_plain = upstreams is not None and all(each is None for each in special)

    def __repr__(self) -> str:
        return f"<Destination {self.name} -> {self.pool or 'none'}>"
