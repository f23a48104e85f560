"""Reading a text for a test: what comes out, or the mistakes as they are printed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import TestCase

from lbsvc.config.loader import Loaded, load_text
from lbsvc.config.schema import ListenerSettings, PoolSettings, RouteSettings, Settings
from lbsvc.errors import ConfigErrors
from tests.kit.authority import Authority

FILE = "etc/lb.yaml"

#: The least that is a configuration; a test puts its own keys below.
LISTENER = "listeners:\n  web:\n    bind: :8080\n    pool: p\n"
POOL = "pools:\n  p:\n    backends: [10.0.0.1:80]\n"


def load(text: str | bytes, env: Mapping[str, str] | None = None) -> Loaded:
    return load_text(text, FILE, {} if env is None else env)


def settings(text: str | bytes, env: Mapping[str, str] | None = None) -> Settings:
    return load(text, env).settings


def mistakes(text: str | bytes, env: Mapping[str, str] | None = None) -> list[str]:
    """The mistakes, each without the file's name in front; [] where the text is right."""
    try:
        load(text, env)
    except ConfigErrors as error:
        return [str(mistake).removeprefix(FILE + ":") for mistake in error.mistakes]
    return []


def listener(lines: str, env: Mapping[str, str] | None = None) -> ListenerSettings:
    """The listener `web` with more keys."""
    return settings(LISTENER + _indented(lines) + POOL, env).listeners["web"]


def listener_mistakes(lines: str, env: Mapping[str, str] | None = None) -> list[str]:
    """The mistakes in more keys for the listener; their first line is 5."""
    return mistakes(LISTENER + _indented(lines) + POOL, env)


def pool(lines: str, env: Mapping[str, str] | None = None) -> PoolSettings:
    """The pool `p` with more keys."""
    return settings(LISTENER + POOL + _indented(lines), env).pools["p"]


def pool_mistakes(lines: str, env: Mapping[str, str] | None = None) -> list[str]:
    """The mistakes in more keys for the pool; their first line is 8."""
    return mistakes(LISTENER + POOL + _indented(lines), env)


def top(lines: str) -> Settings:
    return settings(LISTENER + POOL + lines + "\n")


def top_mistakes(lines: str, env: Mapping[str, str] | None = None) -> list[str]:
    """The mistakes in more top-level keys; their first line is 8."""
    return mistakes(LISTENER + POOL + lines + "\n", env)


class RouteCase(TestCase):
    """Tests of one route of the listener `web`, which begins at 6:9 and is called R in mistakes."""

    def route(self, written: str, env: Mapping[str, str] | None = None) -> RouteSettings:
        return settings(self._around(written), env).listeners["web"].routes[0]

    def assert_wrong(self, written: str, *messages: str, env: Mapping[str, str] | None = None) -> None:
        """These are its mistakes; it is right where there are none."""
        found = [m.replace("listeners.web.routes[0]", "R") for m in mistakes(self._around(written), env)]
        self.assertEqual(found, list(messages))

    def _around(self, written: str) -> str:
        return f"listeners:\n  web:\n    bind: 80\n    pool: p\n    routes:\n      - {written}\n{POOL}"


class CertificateCase(TestCase):
    """Tests with a folder, in which the configuration lb.yaml stands, and certificates of an authority beside it."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.authority = Authority()
        self.ca = self.authority.write(self.folder)

    def issue(self, name: str, *hosts: str, **facts: Any) -> tuple[str, str]:
        """Files NAME.pem and NAME.key; their paths."""
        cert, key = self.authority.issue(*hosts, **facts).write(self.folder, name)
        os.chmod(key, 0o600)
        return cert, key

    def write(self, name: str, content: bytes) -> str:
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, 0o600)
        return path

    def load(self, text: str, env: Mapping[str, str] | None = None, wall: float | None = None) -> Loaded:
        filename = os.path.join(self.folder, "lb.yaml")
        return (
            load_text(text, filename, env or {}) if wall is None else load_text(text, filename, env or {}, lambda: wall)
        )

    def mistakes(self, text: str, env: Mapping[str, str] | None = None) -> list[str]:
        """The mistakes; the folder is called F in them."""
        try:
            self.load(text, env)
        except ConfigErrors as error:
            return [self._short(str(mistake)) for mistake in error.mistakes]
        return []

    def notes(self, text: str, wall: float | None = None) -> list[str]:
        """The notes; the folder is called F in them."""
        return [self._short(note) for note in self.load(text, None, wall).notes]

    def _short(self, line: str) -> str:
        return line.removeprefix(f"{self.folder}/lb.yaml:").strip().replace(self.folder, "F")


def _indented(lines: str) -> str:
    return "".join(f"    {line}\n" for line in lines.splitlines())
