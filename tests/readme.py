"""README.md, read: its fenced blocks with their marks, its links, the words in backticks.

Promises: nothing is left out. A mark is an HTML comment on the line before a block, which readers do not see; it says how
the block is tried by tests/test_readme.py and tests/integration/test_readme.py:

    command: run | test     what a user types first, and what .ci/run runs
    config                  a whole configuration
    config: WHERE           a piece of one that stands at this path, such as listeners.web (`top`: at the root); what it
                            refers to and does not say is added
    config: wrong           one that is refused; the next `prints` shows how
    run: WITH               commands: `the service` of etc/lb.yaml runs; `the file` above it is lb.yaml; `a stand-in` does
                            what only a machine of its own can; `for good`: they do not end by themselves
    prints                  all that the block above it prints; `…` stands for anything in a line
    prints: with other figures   likewise, but numbers, and the units of times and sizes, may be others
    part of: FILE           these very lines stand in that file

Used by those two modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.kit.authority import Authority
from tests.kit.processes import ROOT

README = ROOT / "README.md"

KINDS = frozenset({"command", "config", "run", "prints", "part of"})

_BLOCK = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^([ ]*)```(\w*)\n(.*?)^\2```$", re.MULTILINE | re.DOTALL)
_ADDRESS = re.compile(r"(?<![\w.])(?P<scheme>\w+://)?(?P<host>\[::1\]|[\w*-]+(?:\.[\w-]+)*)?:(?P<port>\d{2,5})\b")
_ABSOLUTE = re.compile(r"(?<![\w.}/])/(?=(?:etc|opt|var|run)/)")


@dataclass(frozen=True)
class Block:
    """A fenced block: `line` is where its fence begins; `kind` and `how` are its mark."""

    line: int
    language: str
    text: str
    kind: str = ""
    how: str = ""

    def __str__(self) -> str:
        return f"README.md:{self.line}"


def read_blocks(text: str) -> list[Block]:
    """The blocks of a text, in its order."""
    found = []
    for match in _BLOCK.finditer(text):
        kind, _, how = (match[1] or "").partition(": ")
        line = text.count("\n", 0, match.start(2)) + 1
        found.append(Block(line, match[3], match[4], kind, how))
    return found


def prose(text: str) -> str:
    """The text without its blocks and comments."""
    return re.sub(r"<!--.*?-->", "", _BLOCK.sub("", text), flags=re.DOTALL)


def read_spans(text: str) -> list[str]:
    """What stands in backticks, outside of blocks."""
    return [re.sub(r"\s+", " ", each) for each in re.findall(r"`([^`]+)`", prose(text))]


def read_links(text: str) -> list[str]:
    """Where its links and pictures lead to."""
    plain = re.sub(r"`[^`]+`", "", prose(text))
    return [*re.findall(r"\]\(([^)\s]+)\)", plain), *re.findall(r'\b(?:src|srcset|href)="([^"]+)"', plain)]


def anchors(text: str) -> set[str]:
    """The headings, as links name them."""
    headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def whole(block: Block) -> str:
    """A block as a whole configuration: a piece is put where it belongs, with what it refers to."""
    if not block.how or block.how == "wrong":
        return block.text
    text = block.text
    if block.how != "top":
        steps = block.how.split(".")
        head = "".join(f"{'  ' * depth}{step}:\n" for depth, step in enumerate(steps))
        text = head + "".join(f"{'  ' * len(steps)}{line}\n" for line in _unindented(text))
    tree = yaml.safe_load(text)
    if not tree.get("listeners"):
        (name, *_) = tree["pools"]
        text += f'listeners:\n  web: {{bind: ":8080", pool: {name}}}\n'
    for name, listener in (tree.get("listeners") or {}).items():
        if "bind" not in listener:
            text = text.replace(f"  {name}:\n", f'  {name}:\n    bind: ":8080"\n', 1)
    missing = sorted(_pools_named(tree.get("listeners")) - set(tree.get("pools") or {}))
    lines = "".join(f"  {name}: {{backends: [127.0.0.1:8009]}}\n" for name in missing)
    if "pools" in tree:
        return text.replace("pools:\n", f"pools:\n{lines}", 1)
    return f"{text}pools:\n{lines}" if lines else text


def _unindented(text: str) -> list[str]:
    lines = text.splitlines()
    least = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return [line[least:] for line in lines]


def _pools_named(tree: Any) -> set[str]:
    """The pools that listeners refer to."""
    if isinstance(tree, list):
        return set().union(*map(_pools_named, tree))
    if not isinstance(tree, dict):
        return set()
    found = set().union(*map(_pools_named, tree.values()))
    if isinstance(pool := tree.get("pool"), str):
        found.add(pool)
    return found | set(tree.get("split") or ())


class Moved:
    """Addresses and absolute paths of the README, put where a test may use them; each address has a port of its own."""

    def __init__(self, folder: Path, ports: Iterable[int]) -> None:
        self.folder = folder
        self._free = iter(ports)
        self._ports: dict[tuple[str, str], int] = {}

    def port(self, host: str, port: str) -> int:
        """The port that stands for this one; every name of this machine is the same one."""
        key = ("" if host in ("", "localhost", "127.0.0.1", "0.0.0.0", "[::1]") else host, port)
        if key not in self._ports:
            self._ports[key] = next(self._free)
        return self._ports[key]

    def text(self, text: str) -> str:
        """The text with its addresses and paths moved."""

        def move(found: re.Match[str]) -> str:
            return f"{found['scheme'] or ''}127.0.0.1:{self.port(found['host'] or '', found['port'])}"

        moved = _ADDRESS.sub(move, text)
        moved = re.sub(r"(--port )(\d+)\b", lambda found: f"{found[1]}{self.port('', found[2])}", moved)
        return _ABSOLUTE.sub(f"{self.folder}/", moved)

    def back(self, text: str) -> str:
        """What was printed, as it would have been with the README's own addresses and paths."""
        for (host, port), ours in self._ports.items():
            text = text.replace(f"127.0.0.1:{ours}", f"{host or '127.0.0.1'}:{port}")
        return text.replace(f"{self.folder}/", "/")


def furnish(text: str, folder: Path) -> None:
    """Make the certificates, keys and folders that a configuration names, below its folder."""
    authority = Authority()
    tree = yaml.safe_load(text)
    for section in _sections(tree):
        for key in ("ca", "client_ca"):
            if isinstance(section.get(key), str):
                (folder / section[key]).parent.mkdir(parents=True, exist_ok=True)
                authority.write(str((folder / section[key]).parent), Path(section[key]).stem)
        if isinstance(cert := section.get("cert"), str):
            leaf = authority.issue("localhost", "www.example.com", kind="rsa" if "rsa" in cert else "ecdsa")
            parts = {cert: leaf.cert_pem}
            key = section.get("key", cert)
            parts[key] = parts.get(key, b"") + leaf.key_pem
            for name, content in parts.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
                (folder / name).chmod(0o600)
    for name in re.findall(r"unix:([\w./-]+)/[\w.-]+|state_file: ([\w./-]+)/", text):
        (folder / "".join(name)).mkdir(parents=True, exist_ok=True)


def _sections(tree: Any) -> list[dict[str, Any]]:
    """Every mapping in it."""
    below = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    own = [tree] if isinstance(tree, dict) else []
    return own + [section for each in below for section in _sections(each)]


_FIGURE = re.compile(r"\d+(?:\.\d+)?(?: ?(?:us|µs|ms|s|B|KiB|MiB))?(?!\w)|(?<= )-(?= )")


def differs(block: Block, printed: str) -> str:
    """What is printed otherwise than the block shows; nothing if it is as it shows it."""
    wanted, found = block.text.rstrip().splitlines(), printed.rstrip().splitlines()
    if len(wanted) != len(found):
        return f"{len(wanted)} lines are shown, {len(found)} printed:\n{printed}"
    for line, real in zip(wanted, found, strict=True):
        pair = [re.sub(r"\s+", " ", each.strip()) for each in (line, real)]
        if block.how == "with other figures":
            pair = [_FIGURE.sub("0", each) for each in pair]
        if re.fullmatch(re.escape(pair[0]).replace("…", ".*"), pair[1]) is None:
            return f"shown:   {line}\nprinted: {real}"
    return ""
