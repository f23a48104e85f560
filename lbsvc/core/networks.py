"""Is an address inside these networks, and what is an address's one spelling.

Promises: `Networks.contains` gives an answer for any text and never raises; what is no IP literal is in no network. An
IPv4 address that is written as IPv6 (`::ffff:192.0.2.1`) counts as IPv4, for networks too, so `::/0` holds no IPv4
client; a scope (`fe80::1%eth0`) does not count. The word "unix" stands for clients of unix sockets, which have no
address. Called for each request where `match.client` or `trusted_proxies` are set, hence the memory of answers: bounded,
since strangers choose what is asked. `NetworkMap.find` follows the same rules, for many networks at once. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Generic, TypeVar

__all__ = ["NetworkMap", "Networks", "normal_address", "span_of"]

T = TypeVar("T")

#: Stands in the place of an address for clients of unix sockets.
UNIX: Final = "unix"
#: Answers that are remembered; when there are as many, all are forgotten.
MEMORY: Final = 4096
#: Characters of the longest text that may be an address, with room for a scope.
LONGEST: Final = 64

_MAPPED: Final = IPv6Network("::ffff:0:0/96")

#: The line of all that a client can be: nothing, unix, IPv4 from 0 on, IPv6 behind it.
_NOTHING: Final = -2
_AT_UNIX: Final = -1
_IPV6: Final = 1 << 32


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


class NetworkMap(Generic[T]):
    """What belongs to the networks that an address is in, found at a cost that the number of networks hardly matters for.

    Networks lie beside or inside one another, so they divide the line of all addresses into stretches, in each of which
    all addresses are in the same ones: one bisection finds the stretch, whatever the lengths of the prefixes are.
    """

    __slots__ = ("_starts", "_values")

    def __init__(self, values: Mapping[tuple[int, int], T]) -> None:
        """The values by their networks, which are as `span_of` gives them."""
        self._starts = [_NOTHING]
        self._values: list[tuple[T, ...]] = [()]
        open_until: list[tuple[int, T]] = []  # the networks around the place that has been come to, widest first
        for (first, last), value in sorted(values.items(), key=lambda item: (item[0][0], -item[0][1])):
            self._close(open_until, first)
            open_until.append((last, value))
            self._begin(first, open_until)
        self._close(open_until, None)

    def find(self, address: str) -> Sequence[T]:
        """The values of all networks that it is in, the widest first; `address` as for Networks, garbage is in none."""
        if len(address) > LONGEST:
            return ()
        return self._values[bisect_right(self._starts, _place_of(address)) - 1]

    def _close(self, open_until: list[tuple[int, T]], before: int | None) -> None:
        """Leave the networks that end before this place; None: all."""
        while open_until and (before is None or open_until[-1][0] < before):
            last, _ = open_until.pop()
            self._begin(last + 1, open_until)

    def _begin(self, start: int, open_until: list[tuple[int, T]]) -> None:
        # Two may begin at one place: the later one counts, since bisection finds the last.
        self._starts.append(start)
        self._values.append(tuple(value for _, value in open_until))


def span_of(cidr: str) -> tuple[int, int]:
    """The first and the last place of a network, or of "unix", on the line of all addresses. Raises ValueError."""
    if cidr == UNIX:
        return _AT_UNIX, _AT_UNIX
    network = _read_network(cidr)
    first = int(network.network_address) + (_IPV6 if network.version == 6 else 0)
    return first, first + network.num_addresses - 1


@lru_cache(MEMORY)
def _place_of(address: str) -> int:
    """Where it stands on the line; only for texts that are short enough to be remembered."""
    if address == UNIX:
        return _AT_UNIX
    found = _read_address(address)
    if found is None:
        return _NOTHING
    return int(found) + (_IPV6 if found.version == 6 else 0)


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
