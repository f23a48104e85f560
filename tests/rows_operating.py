"""The rows of features.md that tell what the five smaller balancers promise of being operated, and their faults.

`ROWS` are the ids of its sections 3.6 to 3.13, in their order, and of the faults at its end; `EXCEPTIONS` are those without
a test, with the reason. How tests name them is said in tests/rows.py. Two tables have rows without ids: those of 3.7 are
numbered here, METRIC-1 to METRIC-13, in the order in which they stand there; what 3.13 plans are other rows.

Where contract.md has something else than a row, the test that names the row shows what contract.md has:

    API-3   the canonical name of the algorithm, not the word as it was typed
    METRIC  names of ours, one for each of theirs; a failed request is one with a code of 5xx
    CLI-1   exit status 69 where nobody answers; the words of the table are ours
    CLI-5   --listen, --backends and --algorithm beside --config
    TLS-1   an expired certificate is served, with a warning and a metric
    TLS-2   versions are "1.2" and "1.3", and there is a lowest one only
    UI-4    no button to refresh: the page is live by server-sent events
    L4-2    there is no metric of reuse: the access log has `t.connect` where a connection was made
    SD-1    exit status 143, or 0 as the first process of a container
    TST-7   no mean latency is asserted, for it depends on the machine; tests/bench/pick_cost.py measures what a choice costs
    L9      503 for nobody to ask, 502 for one that cannot be reached
    OPS-1   no admin/admin: who looks at Grafana needs no name, and nobody can change it

OPS-1, OPS-3 and OPS-7: no container engine runs where this is tested; the files are read, and what they start is started.
"""

from __future__ import annotations

from typing import Final


def _numbered(family: str, last: int) -> tuple[str, ...]:
    return tuple(f"{family}{number}" for number in range(1, last + 1))


ROWS: Final = (
    *_numbered("API-", 11),
    *_numbered("METRIC-", 13),
    "MET-1",
    *_numbered("UI-", 7),
    *_numbered("CLI-", 7),
    *_numbered("TLS-", 5),
    *_numbered("L4-", 3),
    *_numbered("L7-", 7),
    *_numbered("RT-", 5),
    *_numbered("SD-", 2),
    *_numbered("LOG-", 2),
    *_numbered("TST-", 8),
    *_numbered("MK-", 2),
    *_numbered("OPS-", 7),
    *_numbered("A", 16),
    *_numbered("L", 21),
    *_numbered("V", 20),
    *_numbered("S", 8),
)

#: Why a row has no test.
EXCEPTIONS: Final[dict[str, str]] = {
    "L4-3": "none of the five has UDP, nobody asks for it, and contract.md has no listener for it",
    "TST-4": "its thresholds are times, which depend on the machine, and k6 is not in Debian: `make -C etc k6` runs the same"
    " stages by tests/bench/stages.py, and prints p95, p99 and failures",
}
