"""Networks of clients: `trusted_proxies` and `match.client`.

Promises: a network comes out in its one CIDR form (a single address as /32 or /128, IPv4 inside IPv6 as the IPv4 that it
is), and "unix" stands for clients of unix sockets; core/networks.py is built from these. Called by listeners.py and
routes.py.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from lbsvc.config.shapes import NULL, either, fitting, list_of, shaped
from lbsvc.config.walk import Spot, listing

_RULE: Final = "a network such as 10.0.0.0/8, an address, or unix"
_LENGTH: Final = re.compile(r"0|[1-9][0-9]{0,2}")
#: "unix:" reads like a bind; YAML wants quotes around it, so the word alone will do.
_UNIX: Final = ("unix", "unix:")
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


@shaped(fitting(re.compile(r"unix:?|[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?")))
def network(spot: Spot) -> str:
    """A network in CIDR form, or "unix"."""
    found = spot.text()
    if found is None:
        spot.expect(_RULE)
    if found in _UNIX:
        return "unix"
    address, slash, written = found.partition("/")
    try:
        first = ipaddress.ip_address(address)
    except ValueError:
        first = None
    if first is None or "%" in address:  # a scope belongs to one machine's interfaces
        spot.refuse(f"must be {_RULE}{spot.got(_UNIX[:1])}")
    longest = first.max_prefixlen
    if slash and (not _LENGTH.fullmatch(written) or int(written) > longest):
        spot.refuse(f"must have a length from /0 to /{longest}{spot.got()}")
    length = int(written) if slash else longest
    whole = ipaddress.ip_network((first, length), strict=False)
    if whole.network_address != first:
        # Taken as it stands it would be wider than whoever wrote an address into it may think.
        meant = "" if spot.origin else f"{spot.got()[:-1]}; did you mean {whole} or {first}?)"
        spot.refuse(f"has bits set beyond its length{meant or spot.got()}")
    if isinstance(whole, ipaddress.IPv6Network) and whole.subnet_of(_MAPPED):
        inside = whole.network_address.ipv4_mapped
        assert inside is not None
        return f"{inside}/{length - 96}"
    return str(whole)


@shaped(lambda of: either(list_of(network, single=True)(of), NULL))
def networks(spot: Spot) -> tuple[str, ...]:
    """A list of networks, each once, in the order in which they are written; one alone needs no list, null is none."""
    return () if spot.is_null else tuple(dict.fromkeys(listing(network, single=True)(spot)))
