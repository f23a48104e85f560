"""etc/docker, read: the Dockerfile as its instructions, the compose file as its services with the anchors merged.

Promises: only what Docker itself reads is read: comments, continued lines, both forms of commands. Used by
tests/test_containers.py and tests/integration/test_image.py.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from tests.kit.processes import ROOT

FOLDER = ROOT / "etc/docker"

#: One stage of a Dockerfile: (instruction, its arguments as written).
Stage = list[tuple[str, str]]


def stages() -> list[Stage]:
    """The stages of the Dockerfile, each from its FROM on."""
    text = re.sub(r"(?m)^#.*\n", "", (FOLDER / "Dockerfile").read_text())
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found: list[Stage] = []
    for line in filter(None, lines):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        if found:  # an ARG may stand before the first
            found[-1].append((word, rest))
    return found


def all_of(stage: Stage, word: str) -> list[str]:
    """The arguments of every such instruction."""
    return [rest for each, rest in stage if each == word]


def one_of(stage: Stage, word: str) -> str:
    """The arguments of the only such instruction."""
    (found,) = all_of(stage, word)
    return found


def exec_form(rest: str) -> list[str]:
    """A command in exec form: no shell stands between it and signals. Fails for the other one."""
    found: list[str] = json.loads(rest[rest.index("[") :])
    return found


def compose() -> dict[str, Any]:
    """The compose file."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yml").read_text())
    return found


def services() -> dict[str, dict[str, Any]]:
    """Its services by name."""
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def backends() -> dict[str, dict[str, Any]]:
    """Those that are demo backends."""
    return {name: each for name, each in services().items() if "demo-backend" in each.get("entrypoint", ())}
