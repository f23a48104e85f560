"""The names of the balancing algorithms: one canonical name each, and every spelling that is taken for it.

Promises: `canonical_algorithm` ignores case, `-` and `_`, knows the short names of lb-reference.yaml and of the five
smaller balancers (features.md ALG-9), and never guesses: what it does not know is None. Read by config (which refuses
unknown names and lists these) and by core/pickers.py (whose registry is keyed by the canonical names).
"""

from __future__ import annotations

from typing import Final

#: Every canonical name of lb-reference.yaml, in its order.
ALGORITHMS: Final[tuple[str, ...]] = (
    "round_robin",
    "least_connections",
    "random",
    "two_choices",
    "ip_hash",
    "consistent_hash",
    "adaptive",
)


# Spellings with case, "-" and "_" taken away. Weighted names are the plain ones: weights always count here.
_SPELLINGS: Final[dict[str, str]] = {
    "rr": "round_robin",
    "wrr": "round_robin",
    "weightedroundrobin": "round_robin",
    "wroundrobin": "round_robin",
    "smoothroundrobin": "round_robin",
    "lc": "least_connections",
    "wlc": "least_connections",
    "leastconnection": "least_connections",
    "leastconn": "least_connections",
    "leastconns": "least_connections",
    "weightedleastconnections": "least_connections",
    "weightedleastconnection": "least_connections",
    "rand": "random",
    "weightedrandom": "random",
    "p2c": "two_choices",
    "poweroftwo": "two_choices",
    "poweroftwochoices": "two_choices",
    "randomtwochoices": "two_choices",
    "ip": "ip_hash",
    "sourceip": "ip_hash",
    "maglev": "consistent_hash",
    "ch": "consistent_hash",
    "ewma": "adaptive",
    "peakewma": "adaptive",
} | {name.replace("_", ""): name for name in ALGORITHMS}


def canonical_algorithm(text: str) -> str | None:
    """The canonical name of an algorithm in any of its spellings, or None."""
    return _SPELLINGS.get(text.lower().replace("-", "").replace("_", ""))
