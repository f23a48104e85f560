"""The call that sends traffic: POST /api/v1/traffic has one of our own listeners asked a number of times.

Promises: what is asked for is bounded (`MOST_REQUESTS`, `MOST_CLIENTS`, GET or HEAD), and so is its time (sending.py);
it is real traffic, counted where all traffic is; one run at a time (409), none through a listener that speaks no HTTP
(400) or leaves (503). It ends when whoever asked for it goes away, which is also the end of what a client sends:
closing a connection looks like that, and nobody shall load us who waits for no answer. A host that no listener would
read is refused here, in words. A view of operations.py; sending.py does it, by `Control.send`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred

from lbsvc.admin.bodies import Unfit, kind, only, read_object, shown, written
from lbsvc.admin.calls import Answer, Call, Refused, Told
from lbsvc.admin.control import Order
from lbsvc.http.fields import is_authority

MOST_REQUESTS: Final = 1000
MOST_CLIENTS: Final = 20
LONGEST_PATH: Final = 2048
LONGEST_HOST: Final = 261  # a name and a port
METHODS: Final = ("GET", "HEAD")

#: What names and addresses are made of; the grammar of a Host header has more.
_NAME: Final = re.compile(r"[A-Za-z0-9._:\[\]-]+")
_PATH: Final = re.compile(r"/[^\x00-\x1f\x7f]*")


def send_traffic(call: Call) -> Deferred[Answer]:
    order = read_order(read_object(call.body))
    found = [each for each in call.control.status()["listeners"] if each["name"] == order.listener]
    if not found:
        raise Refused(404, f"there is no listener {shown(order.listener)}")
    if found[0]["protocol"] != "http":
        raise Refused(400, f"the listener {shown(order.listener)} speaks no HTTP: requests cannot be sent through it")
    if found[0]["state"] != "listening":
        raise Refused(503, f"the listener {shown(order.listener)} accepts no more: it is {found[0]['state']}")

    def tell(sent: dict[str, Any]) -> Answer:
        words = f"listener {order.listener}: {sent['sent']} requests sent through it"
        return Answer(sent, told=Told(words))

    sending = call.control.send(order)
    call.request.ends_with_reading = True
    return sending.addCallback(tell)


def read_order(fields: Mapping[str, Any]) -> Order:
    """From JSON values."""
    only(fields, "listener", "requests", "clients", "path", "host", "method")
    path = fields.get("path", "/")
    if not isinstance(path, str):
        raise Unfit(f"path: must be text, not {kind(path)}")
    if len(path) > LONGEST_PATH or not _PATH.fullmatch(path):
        raise Unfit(f"path: must begin with /, be {LONGEST_PATH} characters at most, and have no control characters")
    host = fields.get("host")
    if host is not None and not isinstance(host, str):
        raise Unfit(f"host: must be text, not {kind(host)}")
    if host is not None and not _is_host(host):
        raise Unfit("host: must be a host name or an address, perhaps with a port; no empty label, no port over 65535")
    method = fields.get("method", "GET")
    if method not in METHODS:
        raise Unfit(f"method: must be {' or '.join(METHODS)}: what is sent shall change nothing")
    return Order(
        written(fields, "listener"),
        _count(fields, "requests", Order.requests, MOST_REQUESTS),
        _count(fields, "clients", Order.clients, MOST_CLIENTS),
        path,
        host,
        method,
    )


def _is_host(host: str) -> bool:
    """Would our own listeners read it as one?"""
    if len(host) > LONGEST_HOST or not host.isascii() or not is_authority(host.encode("ascii")):
        return False
    return _NAME.fullmatch(host) is not None


def _count(fields: Mapping[str, Any], key: str, otherwise: int, most: int) -> int:
    value = fields.get(key, otherwise)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise Unfit(f"{key}: must be a whole number from 1 to {most}")
    return value
