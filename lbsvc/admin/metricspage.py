"""The page that Prometheus scrapes: /metrics, in the format that the request's Accept prefers.

Promises: text 0.0.4, text 1.0.0 or OpenMetrics 1.0.0; a page of any size is made in slices of about a millisecond
between which the reactor goes on; a scraper that goes away stops the work. No thread. Called by admin/site.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.registry import Collector
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from typing_extensions import override

from lbsvc.observe.metrics import PART, LbsvcCollector

Encoder = Callable[[Collector], bytes]

_END_OF_OPENMETRICS: Final = b"# EOF\n"

#: The media types that we make; of the versions that a scraper offers, those that choose_encoder keeps its word on.
_VERSIONS: Final = {"application/openmetrics-text": ("1.0.0", ""), "text/plain": ("1.0.0", "0.0.4", "")}


def negotiate(accept: str) -> tuple[Encoder, str]:
    """An encoder and its Content-Type for an Accept header.

    prometheus_client's choose_encoder takes the first type that it knows, whatever its q, repeats any version that it is
    asked for, and raises for one that is no number. So it is only shown the best offer of those we can make.
    """
    best, best_quality = "", 0.0
    for offer in accept.split(","):
        media_type, *parameters = [part.strip() for part in offer.split(";")]
        settings = dict(part.split("=", 1) for part in parameters if "=" in part)
        versions = _VERSIONS.get(media_type.lower())
        if versions is None or settings.get("version", "") not in versions:
            continue
        quality = _quality(settings.pop("q", "1"))
        if quality > best_quality:
            shown = [f"{name}={settings[name]}" for name in ("version", "escaping") if name in settings]
            best, best_quality = ";".join([media_type.lower(), *shown]), quality
    if not best:
        return generate_latest, "text/plain; version=0.0.4; charset=utf-8"
    return choose_encoder(best)


def _quality(text: str) -> float:
    try:
        return min(1.0, float(text))
    except ValueError:
        return 0.0


class _Part(Collector):
    """One part of a family, in the place where prometheus_client expects a registry."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    @override
    def collect(self) -> Iterator[Metric]:
        yield self._metric


def encoded(collector: LbsvcCollector, encoder: Encoder, openmetrics: bool) -> Iterator[bytes]:
    """The page in slices of about PART samples."""
    previous = ""
    pending = 0
    slice_: list[bytes] = []
    for part in collector.parts(openmetrics):
        text = encoder(_Part(part))
        if openmetrics:
            text = text.removesuffix(_END_OF_OPENMETRICS)
        family = f"{part.type} {part.name}"
        if family == previous:
            text = text.split(b"\n", 2)[2]  # HELP and TYPE were said with the first part
        previous = family
        slice_.append(text)
        pending += len(part.samples)
        if pending >= PART:
            yield b"".join(slice_)
            slice_, pending = [], 0
    if openmetrics:
        slice_.append(_END_OF_OPENMETRICS)
    yield b"".join(slice_)


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
