"""A comparison as a picture: for each workload a bar for each balancer, as long as its CPU for a request is of HAProxy's.

    python tests/bench/compare.py --svg comparison.svg http,l4
    python tests/bench/picture.py results.json comparison.svg      # from what compare.py --json has written

Plain SVG without scripts or fonts of its own, for light and dark pages. Bars longer than MOST times HAProxy's are cut: a gap
says so, and their number. Numbers beside bars are microseconds of CPU for each request, and the ratio.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

#: The longest bar, in HAProxy's.
MOST: Final = 4.0
#: Pixels.
WIDTH: Final = 880
LEFT: Final = 290
ROW: Final = 18
GAP: Final = 14
TOP: Final = 34
LINE: Final = 16
#: Letters of the caption that fit into a line.
WORDS: Final = 120

HEADLINE: Final = f"CPU for each request; the broken line is HAProxy. Shorter is better. Bars end at {MOST:.0f}."
TITLES: Final = {
    "l4": "TCP, small answers",
    "l4close": "TCP, a connection each",
    "l4bulk": "TCP, 1 MiB answers",
    "http": "HTTP, small answers",
    "browser": "HTTP, a browser's headers",
    "httpclose": "HTTP, a connection each",
    "bulk": "HTTP, 1 MiB answers",
    "post": "HTTP, 64 KiB bodies",
    "tls": "HTTPS, small answers",
    "tlsclose": "HTTPS, a handshake each",
    "tlsbulk": "HTTPS, 1 MiB answers",
    "h2": "HTTP/2, small answers",
}
_STYLE: Final = """
text { font: 12px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; }
.faint { fill: #57606a; }
.one { stroke: #8c959f; stroke-dasharray: 3 3; }
.bar { fill: #afb8c1; }
.haproxy { fill: #8c959f; }
.lbsvc { fill: #0969da; }
.gap { fill: #ffffff; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .faint { fill: #9198a1; } .one { stroke: #6e7681; }
  .gap { fill: #0d1117; }
  .bar { fill: #484f58; } .haproxy { fill: #6e7681; } .lbsvc { fill: #4493f8; }
}
"""

#: workload -> balancer -> what it took (compare.py: Round)
Results = Mapping[str, Mapping[str, Mapping[str, Any]]]


def draw(results: Results, caption: str) -> str:
    """The picture, as SVG. Workloads without CPU (idle connections), or without HAProxy, are left out."""
    shown = {
        name: found for name, found in results.items() if name in TITLES and found.get("haproxy", {}).get("cpu", 0) > 0
    }
    unit = (WIDTH - LEFT - 150) / MOST
    rows: list[str] = []
    y = TOP
    for name, found in shown.items():
        rows.append(f'<text class="title" x="10" y="{y + 12}">{TITLES[name]}</text>')
        base = found["haproxy"]["cpu"]
        for balancer, measured in found.items():
            ratio = measured["cpu"] / base
            length = max(min(ratio, MOST) * unit, 1)
            kind = "lbsvc" if balancer.startswith("lbsvc") else "haproxy" if balancer == "haproxy" else "bar"
            rows.append(f'<text class="faint" x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(balancer)}</text>')
            rows.append(f'<rect class="{kind}" x="{LEFT}" y="{y + 2}" width="{length:.0f}" height="{ROW - 5}" rx="2"/>')
            if ratio > MOST:
                rows.append(
                    f'<rect class="gap" x="{LEFT + length - 14:.0f}" y="{y + 1}" width="5" height="{ROW - 3}"/>'
                )
            words = f"{measured['cpu']:.3g} µs" + (f" · {ratio:.2f}" if balancer != "haproxy" else "")
            rows.append(f'<text x="{LEFT + length + 6:.0f}" y="{y + 12}">{words}</text>')
            y += ROW
        y += GAP
    line = f'<line class="one" x1="{LEFT + unit:.0f}" x2="{LEFT + unit:.0f}" y1="{TOP - 4}" y2="{y - GAP + 4}"/>'
    lines = wrap(caption, WORDS)
    height = y + 8 + len(lines) * LINE
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img" '
            'aria-label="CPU for each request, as multiples of HAProxy\'s">',
            f"<style>{_STYLE}</style>",
            f'<text class="title" x="{LEFT}" y="16">{HEADLINE}</text>',
            line,
            *rows,
            *(
                f'<text class="faint" x="10" y="{y + 10 + number * LINE}">{escape(words)}</text>'
                for number, words in enumerate(lines)
            ),
            "</svg>",
            "",
        ]
    )


def main() -> None:
    """From JSON to SVG."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("source", type=Path, help="what compare.py --json has written")
    parser.add_argument("target", type=Path, help="the picture")
    options = parser.parse_args()
    found = json.loads(options.source.read_text())
    options.target.write_text(draw(found["workloads"], found["caption"]))


if __name__ == "__main__":
    main()
