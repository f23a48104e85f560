"""`openssl s_client`: one conversation after the other, or one that the test steers by what it types.

Promises: it runs with a deadline and in a folder of the test, and is stopped by its pid; what it printed is looked at by
methods, so that tests do not know its words.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from typing_extensions import override

from tests.kit.processes import Child, run, until


class Spoken:
    """What s_client printed of one connection."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text

    @property
    def is_resumed(self) -> bool:
        return self._line(r"^(New|Reused), (?:TLS\S+), Cipher is") == "Reused"

    @property
    def version(self) -> str:
        """Of the handshake that succeeded, "" where none did: then there is no cipher."""
        if self._line(r"^(?:New|Reused), (TLS\S+), Cipher is") is None:
            return ""
        return self._line(r"^ *Protocol *: (\S+)") or self._line(r"^New, (TLSv1\.\d)") or ""

    @property
    def alpn(self) -> str:
        """What was agreed on, "" for nothing."""
        return self._line(r"^ALPN protocol: (\S+)") or ""

    @property
    def alert(self) -> str:
        """The alert that the server has sent, in OpenSSL's words; "" for none."""
        return self._line(r":(?:tlsv1|tlsv13|sslv3|ssl/tls) alert ([^:]+):") or ""

    @property
    def subject(self) -> str:
        """Of the certificate that the server has shown."""
        return self._line(r"^subject=(?:CN = )?(.+)") or ""

    @property
    def signature(self) -> str:
        """By which kind of key the server has signed: ECDSA, RSA-PSS…"""
        return self._line(r"^Peer signature type: (\S+)") or ""

    def _line(self, pattern: str) -> str | None:
        found = re.search(pattern, self.text, re.MULTILINE)
        return found[1].strip() if found else None


def _command(port: int, options: tuple[str, ...]) -> list[str]:
    return ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options]


def s_client(port: int, *options: str, folder: Path, said: bytes = b"") -> Spoken:
    """Connect, say this, and end when the server does (with nothing to say: at once)."""
    ends = ("-ign_eof",) if said else ()
    result = run([*_command(port, options), *ends], folder=folder, stdin=said)
    return Spoken(result.returncode, (result.stdout + result.stderr).decode("utf-8", "replace"))


class Typing(Child):
    """s_client with a test at its keyboard: a line `R` renegotiates, `Q` ends, `K` and `k` update keys."""

    def __init__(self, port: int, *options: str, folder: Path) -> None:
        keyboard = folder / f"keyboard-{port}"
        os.mkfifo(keyboard)
        super().__init__(
            ["sh", "-c", 'exec "$@" <"$0"', str(keyboard), *_command(port, options)],
            folder=folder,
        )
        self._keyboard = os.open(keyboard, os.O_WRONLY)
        until(lambda: "Verify return code" in self.text or self.process.poll() is not None, "met")

    def type(self, text: str) -> None:
        """One line, or several."""
        os.write(self._keyboard, text.encode())

    def shown(self, words: str) -> None:
        """Wait until it has printed this."""
        until(lambda: words in self.text + self.errors, f"{words!r} in {self.report()}")

    @override
    def stop(self) -> None:
        super().stop()
        if self._keyboard >= 0:
            os.close(self._keyboard)
            self._keyboard = -1

    def end(self) -> Spoken:
        """Type no more; what was printed."""
        os.close(self._keyboard)
        self._keyboard = -1
        return Spoken(self.wait(), self.text + self.errors)
