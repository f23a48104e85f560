"""The rows of features.md that tell what the five smaller balancers promise of choosing, surviving and being configured.

`ROWS` are the ids of its sections 3.1 to 3.5 and 3.14, in their order. Tests name them in their docstrings, in parentheses:
all tests that name a row show its whole check together, as its user would see it. (An id before a colon, as in "HC-5: three
failures in a row", only says what a test belongs to.) `EXCEPTIONS` are the rows without such a test, with the reason.
tests/test_rows.py compares both with the docstrings; the rows about operating are in tests/rows_operating.py.

Where contract.md or lb-reference.yaml has something else than a row, the test that names the row shows what they have:

    ALG-2  5, 1, 1 gives a b a a a c a: smoother than the order of the row, with never more than three in a row
    ALG-7  routes, of which the first match wins; `lbctl convert` puts the longest prefix first
    HC-2   3xx is up as well, unless expect_status is narrower
    HC-8   failures within a window, which need not be in a row, eject a backend for a while
    FO-2   `attempts` counts all tries; the default is 2 without a pause
    FO-6   3 s, 60 s and 60 s
    RL-2   connections past the limit wait in the kernel's queue
    ST-4   a backend in drain keeps its sticky clients, one in maint does not
    ST-5   ten thousand clients are remembered for `sticky: ip`; cookies need no memory

Two tables have rows without ids. They are numbered here, in the order in which they stand there:

    FIELD  3.5, fields of a configuration: config file flag, listen, admin listen, algorithm, backends, no config given,
           health, limits, TLS, breaker, sticky, retry, metrics, logging
    PERF   3.14, performance claims: of 000 Akash, 001 Loadex, 004, and of 002 and 003
"""

from __future__ import annotations

from typing import Final

ROWS: Final = (
    *("ALG-1", "ALG-2", "ALG-3", "ALG-4", "ALG-5", "ALG-6", "ALG-7", "ALG-8", "ALG-9", "CT-1", "ALG-10"),
    *("HC-1", "HC-2", "HC-3", "HC-4", "HC-5", "HC-6", "HC-7", "HC-8", "HC-9", "HC-10", "HC-11", "HC-12", "HC-13"),
    *("FO-1", "FO-2", "FO-3", "FO-4", "FO-5", "FO-6"),
    *("CB-1", "CB-2", "CB-3", "CB-4", "CB-5"),
    *("RL-1", "RL-2", "RL-3"),
    *("ST-1", "ST-2", "ST-3", "ST-4", "ST-5", "ST-6"),
    *("FIELD-1", "FIELD-2", "FIELD-3", "FIELD-4", "FIELD-5", "FIELD-6", "FIELD-7", "FIELD-8", "FIELD-9", "FIELD-10"),
    *("FIELD-11", "FIELD-12", "FIELD-13", "FIELD-14"),
    *("CFG-1", "CFG-2"),
    *("PERF-1", "PERF-2", "PERF-3", "PERF-4"),
)

#: Why a row has no test.
EXCEPTIONS: Final[dict[str, str]] = {
    "PERF-1": "a rate depends on the machine, and ours is no MacBook: tests/bench/compare.py measures us beside HAProxy in"
    " the same run, on whatever machine it is, and README.md tells the ratios",
    "PERF-2": "no test asserts times: tests/bench/stages.py goes through these numbers of clients and prints what comes out",
    "PERF-3": "no test asserts times: `lbctl request` and tests/bench/compare.py print mean, rate and failures",
    "PERF-4": "there is no number in it: README.md has ours, with what they were measured on",
}
