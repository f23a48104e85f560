"""Is an address inside these networks, and what is an address's one spelling.

Promises: `Networks.contains` gives an answer for any text and never raises; what is no IP literal is in no network. An
IPv4 address that is written as IPv6 (`::ffff:192.0.2.1`) counts as IPv4, for networks too, so `::/0` holds no IPv4
client; a scope (`fe80::1%eth0`) does not count. The word "unix" stands for clients of unix sockets, which have no
address. Called for each request where `match.client` or `trusted_proxies` are set, hence the memory of answers: bounded,
since strangers choose what is asked. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

__all__ = ["Networks", "normal_address"]

#: Stands in the place of an address for clients of unix sockets.
UNIX: Final = "unix"
#: Answers that are remembered; when there are as many, all are forgotten.
MEMORY: Final = 4096
#: Characters of the longest text that may be an address, with room for a scope.
LONGEST: Final = 64

_MAPPED: Final = IPv6Network("::ffff:0:0/96")


class Networks:
    """A set of networks in CIDR form (host bits clear), and perhaps "unix". Raises ValueError for what is neither."""

    __slots__ = ("_by_version", "_memory", "cidrs")

    def __init__(self, cidrs: Iterable[str]) -> None:
        self.cidrs = frozenset(cidrs)
        #: version -> host bits -> the network numbers of that size
        self._by_version: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        for cidr in self.cidrs - {UNIX}:
            network = _read_network(cidr)
            size = network.max_prefixlen - network.prefixlen
            self._by_version[network.version].setdefault(size, set()).add(int(network.network_address) >> size)
        self._memory: dict[str, bool] = {}

    def contains(self, address: str) -> bool:
        """Is it in one of them? `address` is an IP literal without brackets or port, or "unix"; garbage never is."""
        if not self.cidrs:
            return False
        answer = self._memory.get(address)
        return self._look_up(address) if answer is None else answer

    def _look_up(self, address: str) -> bool:
        answer = self._judge(address)
        if len(address) <= LONGEST:
            if len(self._memory) >= MEMORY:
                self._memory.clear()
            self._memory[address] = answer
        return answer

    def _judge(self, address: str) -> bool:
        if address == UNIX:
            return UNIX in self.cidrs
        found = _read_address(address)
        if found is None:
            return False
        number = int(found)
        return any(number >> size in numbers for size, numbers in self._by_version[found.version].items())

    def __eq__(self, other: object) -> bool:
        return self.cidrs == other.cidrs if isinstance(other, Networks) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.cidrs)

    def __repr__(self) -> str:
        return f"<Networks {' '.join(sorted(self.cidrs))}>"


def normal_address(text: str) -> str | None:
    """The shortest spelling of an IP literal: IPv4 where it is one, no scope; None for what is no IP literal."""
    found = _read_address(text)
    return None if found is None else str(found)


def _read_address(text: str) -> IPv4Address | IPv6Address | None:
    if len(text) > LONGEST:
        return None
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        found = IPv6Address(int(found))  # without its scope
        return found.ipv4_mapped or found
    return found


def _read_network(cidr: str) -> IPv4Network | IPv6Network:
    network = ip_network(cidr)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network
