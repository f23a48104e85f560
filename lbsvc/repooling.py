"""What differs between the settings that a pool has and those that it is to have, in words for people.

Promises: one line for each difference that the configuration's own keys have, `pools.web.backends.c: added`,
`pools.web.algorithm: round_robin -> least_connections`; equal settings give none; secrets are never shown. Asked by pools.py
when a change has been made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Final

from lbsvc.config.schema import BackendSettings, MemberSettings, PoolSettings

#: Fields that follow from others, which are told of.
_DERIVED: Final = frozenset({"host", "port", "is_h2c", "is_secure"})
_LONGEST: Final = 60


def differences(old: PoolSettings, new: PoolSettings) -> list[str]:
    """One line for each."""
    where = f"pools.{new.name}"
    found = list(_of_backends(f"{where}.backends", old.backends, new.backends))
    for field in fields(PoolSettings):
        if field.name == "ahead":
            if (old.ahead > 0) != (new.ahead > 0):
                found.append(f"{where}.connections.keep_alive: {'written' if new.ahead else 'not written any more'}")
        elif field.name not in ("name", "backends"):
            found += _of_value(f"{where}.{field.name}", getattr(old, field.name), getattr(new, field.name))
    return found


def _of_backends(where: str, old: tuple[BackendSettings, ...], new: tuple[BackendSettings, ...]) -> Iterator[str]:
    before = {entry.name: entry for entry in old}
    after = {entry.name: entry for entry in new}
    for name in before:
        if name not in after:
            yield f"{where}.{name}: removed"
    for name, entry in after.items():
        former = before.get(name)
        if former is None:
            yield f"{where}.{name}: added"
        elif former != entry:
            yield from _of_entry(f"{where}.{name}", former, entry)
            yield from _of_members(where, former, entry)
    stays = [name for name in before if name in after]
    if stays != [name for name in after if name in before]:
        yield f"{where}: in another order"


def _of_entry(where: str, old: BackendSettings, new: BackendSettings) -> Iterator[str]:
    for field in fields(BackendSettings):
        if field.name not in ("name", "members", *_DERIVED):
            yield from _of_value(f"{where}.{field.name}", getattr(old, field.name), getattr(new, field.name))


def _of_members(where: str, old: BackendSettings, new: BackendSettings) -> Iterator[str]:
    before = {each.name: each for each in old.members}
    after = {each.name: each for each in new.members}
    for name in {**before, **after}:
        former, own = before.get(name, MemberSettings(name)), after.get(name, MemberSettings(name))
        for key, of_old, of_new in (("weight", old.weight, new.weight), ("state", old.state, new.state)):
            was = of_old if getattr(former, key) is None else getattr(former, key)
            now = of_new if getattr(own, key) is None else getattr(own, key)
            yield from _of_value(f"{where}.{name}.{key}", was, now)


def _of_value(where: str, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    if is_dataclass(old) and is_dataclass(new) and type(old) is type(new):
        for field in fields(old):
            was, now = getattr(old, field.name), getattr(new, field.name)
            if field.repr:
                yield from _of_value(f"{where}.{field.name}", was, now)
            elif was != now:
                yield f"{where}.{field.name}: changed"
        return
    words = f"{_word(old)} -> {_word(new)}"
    yield f"{where}: {words if len(words) <= _LONGEST else 'changed'}"


def _word(value: Any) -> str:
    """A value as people write it, or what there is to say about it."""
    if value is None:
        return "off"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, frozenset):
        return (
            f"[{', '.join(sorted(each.decode('latin-1') if isinstance(each, bytes) else str(each) for each in value))}]"
        )
    return "on" if is_dataclass(value) else "changed"
