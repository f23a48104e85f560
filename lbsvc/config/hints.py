"""What was probably meant by a word that is not known, and how words of others are shown in a message.

Promises: nothing that is shown breaks its line; comparing costs little whatever was written. Called by walk.py and by those
who read words.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

#: What others call some of our keys: where one of these is unknown, the first that is known there was meant.
_ALIASES: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("cert", "certs", "certificate", "crt", "ssl_certificate"), ("certificates", "cert")),
    **dict.fromkeys(("private_key", "ssl_certificate_key"), ("key",)),
    **dict.fromkeys(("ca_cert", "ca_file", "cafile"), ("client_ca", "ca")),
    "sni": ("server_name",),
    "ssl": ("tls",),
}
#: Keys that are looked for beside `tls`, and where they are: by another key of that place, which tells listeners from pools.
_BELOW: Final[dict[str, dict[str, str]]] = {
    "bind": {
        key: f"tls.{key}" for key in ("alpn", "certificates", "ciphers", "client_auth", "client_ca", "min_version")
    },
    "backends": {"alpn": "protocol"},
}


def quoted(text: str) -> str:
    """`text` in quotes, on one line, at most some 60 characters of it."""
    short = text if len(text) <= 60 else text[:57] + "..."
    return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in short) + '"'


def meant_key(key: str, known: Mapping[str, Any]) -> str:
    """The same as `meant` for the name of a setting, of which others may have another."""
    folded = key.lower().replace("-", "_")
    if "tls" in known:
        for place, keys in _BELOW.items():
            if place in known and folded in keys:
                return f"did you mean {keys[folded]}?"
    names = _ALIASES.get(folded, ())
    return next((f"did you mean {name}?" for name in names if name in known), "") or meant(key, known)


def meant(word: str, known: Iterable[str]) -> str:
    """For a message: which of the known words was probably meant, "" for none."""
    folded = {k.lower().replace("-", "_"): k for k in known}
    if len(word) <= 64 and len(folded) <= 300:  # comparing costs time for each of them
        close = difflib.get_close_matches(word.lower().replace("-", "_"), folded, 1, 0.6)
        if close:
            return f"did you mean {folded[close[0]]}?"
    return ""
