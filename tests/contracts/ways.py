"""The four ways of an exchange: clients of either version of HTTP before backends of either."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.contracts.versions import Call, H1Call, H1Served, H2Call, H2Served, Lines, Served
from tests.http.ends import Upstream
from tests.http.road import Road, RoadCase


@dataclass
class Way:
    """A road with clients of one version before backends of one."""

    road: Road
    client_is_h2: bool
    backend_is_h2: bool
    seen: dict[Upstream, Served] = field(default_factory=dict)

    def ask(
        self, method: str = "GET", path: str = "/a", lines: Lines = (), *, size: int | None = None, ended: bool = True
    ) -> Call:
        kind = H2Call if self.client_is_h2 else H1Call
        return kind(self.road, method, path, lines, size, ended)

    def served(self, number: int = -1) -> Served:
        """The newest request on one of the connections to backends, in the order in which they were made."""
        end = self.road.upstream(number)
        if end not in self.seen:
            self.seen[end] = (H2Served if self.backend_is_h2 else H1Served)(end)
        return self.seen[end]

    @property
    def reasons(self) -> list[tuple[int | None, str]]:
        return [(record.status, record.reason) for record in self.road.records]


class ContractCase(RoadCase):
    def ways(self, *given: Any, **keys: Any) -> Iterator[Way]:
        """All four."""
        for client_is_h2 in (False, True):
            for backend_is_h2 in (False, True):
                yield self.way(client_is_h2, backend_is_h2, *given, **keys)

    def way(self, client_is_h2: bool, backend_is_h2: bool, *given: Any, **keys: Any) -> Way:
        road = self.road(*given, **keys)
        if backend_is_h2:
            for backend in road.backends:
                road.upstreams.multiplex(backend, None, True)
        return Way(road, client_is_h2, backend_is_h2)

    def assert_served(self, way: Way, call: Call, number: int = -1, body: bytes = b"ok") -> None:
        """The backend's answer arrives whole."""
        served = way.served(number)
        served.head()
        served.data(body)
        served.finish()
        self.assertEqual((call.status, call.body, call.is_whole, call.is_cut), (200, body, True, False), way)
