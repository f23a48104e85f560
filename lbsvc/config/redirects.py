"""Where a `redirect` route sends clients: its target and its status.

Promises: a target is a URL or a path of visible ASCII, every {word} in it is known, and of what the client wrote only the
Host, as {host}, can become part of a host name: path and query stand behind a `/`, `?` or `#`, and {path} and {uri} begin
with a slash themselves. Called by routes.py; http/responses.py fills the words in.
"""

from __future__ import annotations

import difflib
import re
from typing import Final

from lbsvc.config.schema import Redirect
from lbsvc.config.shapes import fitting, like, one_of, shaped
from lbsvc.config.values import number, visible, words
from lbsvc.config.walk import Section, Spot, plain

#: {host} without its port, {path} and {uri} (path and query) as they came, {query} without its `?`, {scheme}.
PLACEHOLDERS: Final = ("host", "path", "query", "scheme", "uri")

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_SCHEME: Final = r"(?:(?:https?|\{scheme\}):)?//"
#: A host name and what goes with it, of which {host} may be a part.
_AUTHORITY: Final = r"(?:[^/?#*{}\\]|\{host\})+"
_TARGET: Final = re.compile(
    rf"(?:{_SCHEME}{_AUTHORITY}(?=[/?#]|\{{path\}}|\{{uri\}}|$)|(?=/(?![/\\])|\{{path\}}|\{{uri\}}))[^*]*\*?"
)
#: What would let a client choose the host, since no slash stands before it.
_CHOSEN: Final = re.compile(rf"{_SCHEME}(?:(?:{_AUTHORITY})?(\*|\{{query\}}|\{{scheme\}})|(\{{path\}}|\{{uri\}}))")


@shaped(fitting(re.compile(r"[\x21-\x7e]+"), maxLength=4096))
def redirect_target(spot: Spot) -> str:
    """The `to` of a redirection."""
    found = visible(spot)
    for name in _PLACEHOLDER.findall(found):
        if name not in PLACEHOLDERS:
            close = [] if spot.origin else difflib.get_close_matches(name[:64], PLACEHOLDERS, 1)
            hint = f"; did you mean {{{close[0]}}}?)" if close else ")"
            known = words(tuple(f"{{{each}}}" for each in PLACEHOLDERS), "and")
            spot.refuse(f"knows no words but {known}{spot.got()[:-1]}{hint}")
    if re.search(r"[{}]", _PLACEHOLDER.sub("", found)):
        spot.refuse(f"has a brace that belongs to no word{spot.got()}")
    chosen = _CHOSEN.match(found)
    if chosen:
        spot.refuse(f"cannot have {chosen[1] or chosen[2]} in the host name, for clients choose it{spot.got()}")
    if not _TARGET.fullmatch(found):
        spot.expect("an http:// or https:// URL or a path, with * at its end only")
    return found


@shaped(one_of(301, 302, 303, 307, 308))
def _status(spot: Spot) -> int:
    found = number(300, 399)(spot)
    if found not in (301, 302, 303, 307, 308):
        spot.expect("301, 302, 303, 307 or 308")
    return found


REDIRECT: Final = Section(
    {"to": redirect_target, "status": _status},
    plain(Redirect),
    required=("to",),
    short=shaped(like(redirect_target))(lambda spot: Redirect(redirect_target(spot))),
)
