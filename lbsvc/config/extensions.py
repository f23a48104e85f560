"""Algorithms that others add: found among Twisted's plugins, tried once, and registered where they are named.

Promises: a name of ours always means ours. A plugin is imported only if a configuration asks for a name that is not ours
and this plugin has it; whatever is wrong with it is an `ExtensionFault` there, in words, and nothing anywhere else. A class
that is registered has shown what core/pickers.py asks of every picker, on a pool of two. Called by pools.py as it reads
`algorithm`, and at no other time: discovery looks at the file system.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from random import Random
from types import ModuleType
from typing import Any, Final, NamedTuple

from twisted.plugin import getCache
from twisted.python.modules import getModule

from lbsvc.core.algorithms import ALGORITHMS, canonical_algorithm
from lbsvc.core.backend import Backend
from lbsvc.core.pickers import PICKERS, Picker
from lbsvc.plugin import IAlgorithm

#: What an exception says is cut to so many characters.
LONGEST: Final = 200


class ExtensionFault(Exception):
    """What was named cannot be had; the text, one line, goes on where the key and a colon end."""


class Found(NamedTuple):
    """A plugin that adds an algorithm, or the reason why it cannot be asked which one."""

    module: str
    plugin: Any = None
    fault: str = ""


def known_algorithm(name: str) -> str | None:
    """The canonical name of an algorithm, ours or a plugin's, which can be used from here on; None: there is none.

    Raises ExtensionFault where a plugin has this name and cannot be used, and for a name that nobody has while there are
    plugins that cannot be imported: it may be theirs.
    """
    ours = canonical_algorithm(name)
    if ours is not None:
        return ours
    found = list(_plugins())
    named = [each for each in found if not each.fault and _folded(each.plugin.name) == _folded(name)]
    if not named:
        _blame_broken(found)
        return None
    first, *others = named
    if others:
        raise ExtensionFault(f"is added by two plugins: {first.module} and {others[0].module}")
    try:
        picker = first.plugin.picker
        if isinstance(picker, str):
            module, _, attribute = picker.rpartition(".")
            picker = getattr(import_module(module), attribute)
        _try_out(picker)
    except _Unfit as unfit:
        raise ExtensionFault(f"its plugin {first.module} cannot be used: {unfit}") from None
    except Exception as error:
        raise ExtensionFault(f"its plugin {first.module} cannot be used: {_in_words(error)}") from error
    canonical: str = first.plugin.name
    PICKERS[canonical] = picker
    return canonical


def algorithm_names() -> tuple[str, ...]:
    """Every name that there is to choose from, ours first."""
    added = {each.plugin.name for each in _plugins() if not each.fault}
    return ALGORITHMS + tuple(sorted(name for name in added if canonical_algorithm(name) is None))


def _plugins() -> Iterator[Found]:
    """Every plugin that adds an algorithm, and every file of plugins that cannot be imported."""
    package = _package()
    cache = getCache(package)
    for module in getModule(package.__name__).iterModules():
        dropin = cache.get(module.name.rpartition(".")[2])
        try:
            if dropin is None:  # Twisted has not been able to import it, and has logged why; it keeps that to itself
                module.load()
                continue
            for cached in dropin.plugins:
                if any(provided.isOrExtends(IAlgorithm) for provided in cached.provided):
                    plugin = cached.load()
                    if isinstance(getattr(plugin, "name", None), str):
                        yield Found(module.name, plugin)
        except Exception as error:
            yield Found(module.name, fault=_in_words(error))


def _package() -> ModuleType:
    """Where Twisted's plugins are; tests put another one here."""
    import twisted.plugins

    return twisted.plugins


def _blame_broken(found: list[Found]) -> None:
    broken = [f"{each.module} cannot be imported: {each.fault}" for each in found if each.fault]
    if broken:
        raise ExtensionFault(f"must be one of {', '.join(algorithm_names())}; of the plugins, {'; '.join(broken)}")


class _Unfit(Exception):
    """It is not what it should be; says why."""


def _try_out(kind: Any) -> None:
    """Whether this class does what every picker must: as little of it as shows that it was meant to be one."""
    if Picker not in getattr(kind, "__mro__", ()):
        raise _Unfit(f"{_shown(kind)} is no class that inherits from lbsvc.plugin.Picker")
    one, two = (Backend("trial", name, f"{name}:80", "192.0.2.1", 80) for name in ("one", "two"))
    picker = kind(Random(1))
    picker.seconds = lambda: 0.0
    for members in ((), (one, two), (two,), ()):
        picker.update(members)
        for excluded in ((), (one,), (one, two)):
            allowed = [each for each in members if each not in excluded]
            for picked in (picker.pick(excluded), picker.pick_by(1, excluded)):
                if picked not in allowed if allowed else picked is not None:
                    raise _Unfit(
                        f"{_shown(kind)} picks {_name(picked)} where the members are {_names(members)}"
                        f" and excluded {_names(excluded)}"
                    )
                if picked is not None and kind.wants_hooks:
                    picked.active += 1
                    picker.acquired(picked)
                    picked.active -= 1
                    picker.released(picked)
    if kind.wants_results:
        picker.finished(one, 0.1, False, 0.0)


def _folded(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _shown(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else repr(kind)[:60]


def _name(picked: Any) -> str:
    return "nobody" if picked is None else picked.name if isinstance(picked, Backend) else repr(picked)[:60]


def _names(backends: tuple[Backend, ...]) -> str:
    return " and ".join(each.name for each in backends) or "nobody"


def _in_words(error: Exception) -> str:
    text = " ".join(str(error).split())[:LONGEST]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
