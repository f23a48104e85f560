"""The page that Prometheus scrapes: which format it gets, and how the page is made without holding anybody up.

Promises: text 0.0.4, text 1.0.0 or OpenMetrics 1.0.0, as the request's Accept prefers; a page of any size is made
slice by slice (observe/exposition.py), a slice in a turn of the reactor; a scraper that goes away stops the work. No
thread. `prefers_json` tells who wants the array of the smaller balancers instead,
`accepts_html` who is a browser. Called by admin/site.py and pages.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.exposition import choose_encoder
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

#: The media types that we make; of the versions that a scraper offers, those that choose_encoder keeps its word on.
_VERSIONS: Final = {"application/openmetrics-text": ("1.0.0", ""), "text/plain": ("1.0.0", "0.0.4", "")}

#: Ways of escaping names that leave ours, which are plain, as they are.
_ESCAPINGS: Final = ("allow-utf-8", "underscores", "values")

DEFAULT: Final = "text/plain; version=0.0.4; charset=utf-8"


def negotiate(accept: str) -> tuple[str, bool]:
    """The Content-Type for an Accept header, and whether that is OpenMetrics.

    prometheus_client's choose_encoder takes the first type that it knows, whatever its q, repeats any version that it is
    asked for, and raises for one that is no number. So it is only shown the best offer of those we can make.
    """
    best, best_quality = "", 0.0
    for offer in accept.split(","):
        media_type, *parameters = [part.strip().lower() for part in offer.split(";")]
        settings = dict(part.split("=", 1) for part in parameters if "=" in part)
        versions = _VERSIONS.get(media_type)
        if versions is None or settings.get("version", "") not in versions:
            continue
        quality = _quality(settings.get("q", "1"))
        if quality > best_quality:
            best, best_quality = media_type, quality
            if "version" in settings:
                best += f";version={settings['version']}"
            if settings.get("escaping") in _ESCAPINGS:
                best += f";escaping={settings['escaping']}"
    if not best:
        return DEFAULT, False
    content_type = choose_encoder(best)[1]
    return content_type, content_type.startswith("application/openmetrics-text")


def prefers_json(accept: str) -> bool:
    """Whether an Accept header names application/json, before anything that the page could be as well; */* does not."""
    best, best_quality = "", 0.0
    for offer in accept.split(","):
        media_type, *parameters = [part.strip().lower() for part in offer.split(";")]
        settings = dict(part.split("=", 1) for part in parameters if "=" in part)
        quality = _quality(settings.get("q", "1"))
        if media_type in ("application/json", *_VERSIONS) and quality > best_quality:
            best, best_quality = media_type, quality
    return best == "application/json"


def accepts_html(accept: str) -> bool:
    """Whether an Accept header names text/html, as browsers do; */* does not."""
    for offer in accept.split(","):
        media_type, *parameters = [part.strip().lower() for part in offer.split(";")]
        settings = dict(part.split("=", 1) for part in parameters if "=" in part)
        if media_type == "text/html" and _quality(settings.get("q", "1")) > 0:
            return True
    return False


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


class Rendering:
    """One page in the making: a slice in a turn of the reactor."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        slices: Iterator[bytes],
        done: Callable[[bytes], None],
        failed: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._slices = slices
        self._done = done
        self._failed = failed
        self._text: list[bytes] = []
        self._stopped = False

    def go_on(self) -> None:
        """Make the next slice; after the last, hand over the page."""
        if self._stopped:
            return
        try:
            text = next(self._slices, None)
        except Exception:
            self._log.failure("cannot render the metrics")
            self._failed()
            return
        if text is None:
            self._done(b"".join(self._text))
        else:
            self._text.append(text)
            self._clock.callLater(0, self.go_on)

    def stop(self) -> None:
        """Nobody waits for it any more."""
        self._stopped = True
