"""The table of connections' routes against a walk over the routes in their written order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.core.networks import Networks
from lbsvc.core.streamroutes import StreamPattern, StreamTable

LABELS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(".".join)
PATTERNS = st.builds(
    StreamPattern,
    st.lists(st.one_of(LABELS, LABELS.map("*.{}".format)), max_size=3).map(tuple),
    st.sampled_from([None, None, Networks(["10.0.0.0/8"]), Networks(["10.1.0.0/16", "unix"])]),
)
CLIENTS = st.sampled_from(["10.0.0.1", "10.1.0.1", "192.0.2.1", "unix", "2001:db8::1"])


def fits_name(pattern: StreamPattern, name: str) -> bool:
    if not pattern.names:
        return True
    return any(
        name == each or (each.startswith("*.") and name.endswith(each[1:]) and len(name) >= len(each))
        for each in pattern.names
    )


def fits_client(pattern: StreamPattern, client: str) -> bool:
    return pattern.networks is None or pattern.networks.contains(client)


class StreamTableProperties(TestCase):
    @settings(max_examples=300, deadline=None, database=None)
    @given(st.lists(PATTERNS, max_size=30), st.lists(st.tuples(CLIENTS, st.one_of(st.just(""), LABELS)), max_size=10))
    def test_as_a_walk(self, patterns: list[StreamPattern], connections: list[tuple[str, str]]) -> None:
        """The first route that fits client and name is found, else the default; and who needs no name goes one way."""
        table = StreamTable([(pattern, place) for place, pattern in enumerate(patterns)], -1)
        for client, name in connections:
            fitting = [
                place
                for place, pattern in enumerate(patterns)
                if fits_client(pattern, client) and fits_name(pattern, name)
            ]
            self.assertEqual(table.find(client, name), fitting[0] if fitting else -1)
            ways = [pattern for pattern in patterns if fits_client(pattern, client)]
            self.assertEqual(table.needs_name(client), bool(ways) and bool(ways[0].names))
            if not table.needs_name(client):
                self.assertEqual(table.find(client, name), table.find(client, ""))
