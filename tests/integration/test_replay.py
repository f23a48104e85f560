"""Random sequences of admin calls, reloads and restarts, against a model of what should be in force (promised.py)."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.integration.cases import ProcessTestCase
from tests.integration.promised import Clash, Entry, File, FilePool, InForce, Missing, PoolInForce, Shown
from tests.integration.replaying import ODD, PLACES, WELL, Replayed, counted, entry_keys, path_of
from tests.kit.processes import until

NAMES = ("a", "b", "c/d", "..", "e ?#%25")
POOLS = ("web", "api")
CHECK = (("path", WELL), ("interval", "30ms"), ("rise", 1), ("fall", 1))
ALGORITHMS = ("round_robin", "least_connections", "random")

names = st.sampled_from(NAMES)
pools = st.sampled_from((*POOLS, *POOLS, *POOLS, *POOLS, "none"))
weights = st.integers(0, 3)
places = st.integers(0, PLACES - 1)

EDITS = ("weight", "weight", "backup", "add", "add", "drop", "move", "order", "algorithm", "check", "path", "pool")

#: Changes of a file: each is told the pool that it may change.
edits = st.lists(
    st.tuples(
        st.sampled_from(POOLS),
        st.sampled_from((*EDITS, "word", "side")),
        names,
        places,
        weights,
    ),
    min_size=1,
    max_size=3,
)
#: Calls that are refused whatever is in force, and how.
UNFIT = (
    ("PATCH", "", {}, 422), ("PATCH", "", {"weight": -1}, 422), ("PATCH", "", {"weight": True}, 422),
    ("PATCH", "", {"state": "gone"}, 422), ("PATCH", "", {"weight": 2, "colour": 1}, 422),
    ("PATCH", "", {"weight": 2, "state": "up"}, 422), ("PATCH", "", [], 422), ("PATCH", "", b"{", 400),
    ("PATCH", "", b'{"weight": 2, "weight": 3}', 400), ("DELETE", "?drain=soon", None, 422), ("DELETE", "?now", None, 400),
    ("PUT", "", {"weight": 2}, 405),
)  # fmt: skip


class Replay(RuleBasedStateMachine):
    """What is done to the one service, and what must be so then."""

    service: Replayed

    @initialize(check=st.sampled_from((True, True, False)))
    def begin(self, check: bool) -> None:
        """Without pools nothing of what was changed before stands; tags and generations go on."""
        self.tags: dict[str, tuple[str, Any]] = {}
        self.stale: dict[str, str] = {}
        self.restarted = False
        first = [Entry(name, self.address(place), place + 1) for place, name in enumerate(NAMES[:3])]
        pool = FilePool(tuple(first), CHECK if check else None)
        self.file = File((("api", replace(pool, entries=pool.entries[1:])), ("web", pool)))
        for file in (File(), self.file):
            self.service.write(self.service.text(file))
            status, applied, _ = self.service.ask("POST", "/reload")
            assert status == 200, applied
        self.model = InForce(self.file)
        self.model.generation = applied["generation"]

    def address(self, place: int, scheme: str = "") -> str:
        return f"{scheme}127.0.0.1:{self.service.places[place]}"

    # -- admin calls

    def told(self, call: tuple[int, Any, str], change: Callable[[], None], status: int) -> None:
        """A call that must end as the same change of the model does."""
        try:
            change()
        except Missing:
            status = 404
        except Clash:
            status = 409
        assert call[0] == status, (call, status)
        if status < 300:
            assert call[1]["generation"] == self.model.generation

    @rule(
        pool=pools,
        name=names,
        place=places,
        weight=weights,
        backup=st.booleans(),
        scheme=st.sampled_from(("", "http://")),
    )
    def add(self, pool: str, name: str, place: int, weight: int, backup: bool, scheme: str) -> None:
        entry = Entry(name, self.address(place, scheme), weight, backup and weight == 1)
        call = self.service.ask("POST", f"{path_of(pool)}/backends", entry_keys(entry))
        self.told(call, lambda: self.model.pool(pool).add(entry), 201)

    @rule(pool=pools, name=names, query=st.sampled_from(("", "?drain=0s", "?drain=5s")))
    def remove(self, pool: str, name: str, query: str) -> None:
        call = self.service.ask("DELETE", path_of(pool, name) + query)
        self.told(call, lambda: self.model.pool(pool).remove(name), 202)

    @rule(
        pool=pools,
        name=names,
        weight=st.none() | weights,
        state=st.sampled_from((None, "ready", "drain", "maint")),
        tag=st.sampled_from(("", "", "right", "old")),
    )
    def change(self, pool: str, name: str, weight: int | None, state: str | None, tag: str) -> None:
        fields = {key: value for key, value in (("weight", weight), ("state", state)) if value is not None}
        headers = {}
        if tag == "right" and pool in self.tags:
            headers = {"If-Match": f'"x", {self.tags[pool][0]}'}
        elif tag == "old" and pool in self.stale and pool in self.model.pools:
            headers = {"If-Match": self.stale[pool]}
        call = self.service.ask("PATCH", path_of(pool, name), fields, headers)
        if tag == "old" and headers:
            assert call[0] == 412, call
        elif not fields:
            assert call[0] == (422 if pool in self.model.pools else 404), call
        else:
            self.told(call, lambda: self.model.pool(pool).change(name, weight, state), 200)

    @rule(
        pool=pools,
        fields=st.fixed_dictionaries(
            {"path": st.sampled_from((ODD, WELL))},
            optional={
                "interval": st.sampled_from(("20ms", "30ms")),
                "rise": st.integers(1, 2),
            },
        ),
    )
    def change_check(self, pool: str, fields: dict[str, Any]) -> None:
        call = self.service.ask("PATCH", f"{path_of(pool)}/health_check", fields)
        there = self.model.pools.get(pool)
        if there is not None and there.checked is None:
            assert call[0] == 422, call
        else:
            self.told(call, lambda: self.model.pool(pool).change_check(fields), 200)

    @rule(pool=st.sampled_from(POOLS), name=names, unfit=st.sampled_from(UNFIT))
    def ask_for_nonsense(self, pool: str, name: str, unfit: tuple[str, str, Any, int]) -> None:
        method, query, body, wanted = unfit
        status, answer, _ = self.service.ask(method, path_of(pool, name) + query, body)
        known = {wanted, 404} if pool not in self.model.pools or method == "DELETE" else {wanted}
        assert status in known and answer["status"] == status, (status, answer)

    # -- files

    def edited(self, changes: list[tuple[str, str, str, int, int]]) -> File:
        """The file last applied with some changes; those that make no file are left out."""
        file = self.file
        for pool, what, name, place, weight in changes:
            if what == "word":
                file = replace(file, word=f"{name} {place}")
            elif what == "side":
                file = replace(file, has_side=not file.has_side)
            else:
                file = file.having(pool, self.edited_pool(file.pool(pool), what, name, place, weight))
        return file

    def edited_pool(self, pool: FilePool | None, what: str, name: str, place: int, weight: int) -> FilePool | None:
        here = Entry(name, self.address(place), weight)
        if pool is None:
            return FilePool((here,))
        if what == "pool":
            return None
        if what == "algorithm":
            return replace(pool, algorithm=ALGORITHMS[weight % 3])
        if what == "check":
            return replace(pool, check=CHECK if pool.check is None else None)
        if what == "path":
            return replace(pool, check=pool.check and (("path", ODD if weight == 0 else WELL), *CHECK[1:]))
        entries = list(pool.entries)
        if what == "order":
            entries.append(entries.pop(0))
        if what == "add":
            entries.append(here)
        if what == "drop":
            entries = [entry for entry in entries if entry.name != name]
        changed = {"weight": {"weight": weight}, "backup": {"backup": weight > 1}, "move": {"address": here.address}}
        if what in changed:
            entries = [replace(entry, **changed[what]) if entry.name == name else entry for entry in entries]
        is_one = len(entries) == len({entry.name for entry in entries}) == len({entry.address for entry in entries})
        return replace(pool, entries=tuple(entries)) if entries and is_one else pool

    @rule(changes=edits)
    def reload(self, changes: list[tuple[str, str, str, int, int]]) -> None:
        self.file = self.edited(changes)
        self.service.write(self.service.text(self.file))
        status, answer, _ = self.service.ask("POST", "/reload")
        assert status == 200, answer
        self.model.read(self.file)
        assert answer["generation"] == self.model.generation
        assert self.service.metric("lbsvc_config_last_reload_successful") == 1

    @rule(
        changes=edits,
        fault=st.sampled_from(("syntax", "key", "weight", "pool", "twice", "taken", "missing", "log", "state")),
    )
    def reload_what_is_wrong(self, changes: list[tuple[str, str, str, int, int]], fault: str) -> None:
        """Nothing of it comes into force, whatever else the file changes."""
        tree = self.service.tree(self.edited(changes))
        main = tree["listeners"]["main"]
        if fault == "key":
            tree["lisseners"] = {}
        elif fault == "weight":
            tree["pools"]["web"] = {"backends": [{"address": self.address(0), "weight": -1}]}
        elif fault == "pool":
            main["routes"] = [{"match": {"path": "/*"}, "pool": "nobody"}]
        elif fault == "twice":
            tree["listeners"]["other"] = main
        elif fault == "taken":
            tree["listeners"]["other"] = {**main, "bind": self.address(0)}
        elif fault == "missing":
            main["tls"] = {"certificates": [{"cert": "none.pem", "key": "none.pem"}]}
        elif fault == "log":
            tree["log"] = {"path": "/proc/none/log"}
        elif fault == "state":
            tree["state_file"] = "/proc/none/state"
        self.service.write("listeners: [" if fault == "syntax" else yaml.safe_dump(tree))
        status, answer, _ = self.service.ask("POST", "/reload")
        if fault == "state" and status == 200:
            raise AssertionError(f"a state file that cannot be written was taken: {answer}")
        assert status == 422 and answer["errors"], answer
        assert self.service.metric("lbsvc_config_last_reload_successful") == 0

    @precondition(lambda self: not self.restarted)
    @rule(changes=edits, how=st.sampled_from((signal.SIGTERM, signal.SIGKILL)))
    def restart(self, changes: list[tuple[str, str, str, int, int]], how: int) -> None:
        """What people changed outlives it, and the file that changed meanwhile is held against the one before."""
        self.restarted = True
        self.file = self.edited(changes)
        status = self.service.restart(self.service.text(self.file), how)
        assert status == -how, status
        self.model.read(self.file)
        self.model.generation = 1
        self.stale.update((pool, tag) for pool, (tag, _) in self.tags.items())  # a process knows no tag of another
        self.tags.clear()

    # -- what must be so

    def wanted_health(self, pool: PoolInForce, backend: Shown) -> str:
        if backend.state == "maint":
            return "unknown"
        if pool.checked is None:
            return "up"
        is_ill = pool.checked["path"] == ODD and self.service.number[backend.port] % 2
        return "down" if is_ill else "up"

    def seen(self) -> Any:
        """The pools as status shows them."""
        status, answer, _ = self.service.ask("GET", "/status")
        assert status == 200 and answer["generation"] == self.model.generation and answer["ready"], answer
        return {
            pool["name"]: (
                pool["algorithm"],
                [
                    (Shown(**{key: each[key] for key in Shown.__dataclass_fields__}), each["health"])
                    for each in pool["backends"]
                ],
            )
            for pool in answer["pools"]
        }

    @invariant()
    def holds(self) -> None:
        """In this order: what checks find comes a moment later than what is told to people."""
        self.shown()
        self.served()

    def shown(self) -> None:
        """Status, configuration and tags say what is in force."""
        wanted = {
            name: (pool.written.algorithm, [(each, self.wanted_health(pool, each)) for each in pool.backends])
            for name, pool in self.model.pools.items()
        }
        last: list[Any] = []

        def is_so() -> bool:
            last[:] = [_sorted(self.seen())]
            return bool(last[0] == _sorted(wanted))

        try:
            until(is_so, "in force", 10)
        except AssertionError:
            raise AssertionError(f"should be {_sorted(wanted)}\nand is {last}\n{self.service.report()}") from None
        _, config, _ = self.service.ask("GET", "/config")
        assert set(config["pools"]) == set(wanted)
        assert set(config["listeners"]) == {"main", *(["side"] if self.file.has_side else [])}
        for name, pool in self.model.pools.items():
            self.look_at_pool(name, pool, config["pools"][name])

    def look_at_pool(self, name: str, pool: PoolInForce, config: dict[str, Any]) -> None:
        found = [
            Shown(*(each[key] for key in ("name", "address", "weight", "backup")), each.get("x-state", "ready"),
                  each.get("x-source", "config"))
            for each in config["backends"]
        ]  # fmt: skip
        assert found == pool.backends, (found, pool.backends)
        check = config["health_check"]
        assert (check == "off") == (pool.checked is None), check
        if pool.checked is not None:
            assert {key: check[key] for key in pool.checked} == pool.checked, (check, pool.checked)
        status, _, tag = self.service.ask("GET", path_of(name))
        assert status == 200
        now = (pool.backends, pool.checked, pool.written.algorithm)
        if name in self.tags:
            before, was = self.tags[name]
            assert (tag == before) if was == now else (counted(tag) > counted(before)), (before, tag, was, now)
            if tag != before:
                self.stale[name] = before
        assert tag != self.stale.get(name)
        self.tags[name] = tag, now

    def served(self) -> None:
        """Requests reach exactly those who may get traffic; whom they reach is a matter of the weights."""
        assert self.service.fetch("/word") == (200, self.file.word)
        with socket.socket() as client:
            is_open = client.connect_ex(("127.0.0.1", self.service.side)) == 0
        assert is_open == self.file.has_side
        for name in POOLS:
            pool = self.model.pools.get(name)
            if pool is None:
                assert self.service.fetch(f"/{name}/x")[0] == 404
                continue
            may = [
                each
                for each in pool.backends
                if each.state == "ready" and each.weight > 0 and self.wanted_health(pool, each) == "up"
            ]
            first = [each for each in may if not each.backup] or may
            count = sum(each.weight for each in first) or 1
            answers = [self.service.fetch(f"/{name}/x") for _ in range(count)]
            if not first:
                assert answers[0][0] == 503, answers
                continue
            share = {str(self.service.number[each.port]): each.weight for each in first}
            assert {status for status, _ in answers} == {200}, answers
            reached = [body for _, body in answers]
            assert set(reached) <= set(share), (reached, share)
            if pool.written.algorithm == "round_robin":
                reached += [self.service.fetch(f"/{name}/x")[1] for _ in range(2 * count)]
                assert set(reached) == set(share), (reached, share)


def _sorted(found: dict[str, tuple[str, list[Any]]]) -> dict[str, tuple[str, list[Any]]]:
    return {name: (algorithm, sorted(each, key=str)) for name, (algorithm, each) in found.items()}


class ReplayTests(ProcessTestCase):
    """One process, many sequences."""

    timeout = 300

    def test_replay(self) -> None:
        """Whatever is called in whatever order: what is in force is what contract.md says, and traffic goes by it."""
        service = Replayed(self)
        service.start(service.text(File()))

        class Machine(Replay):
            pass

        Machine.service = service
        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=40,
                    stateful_step_count=25,
                    derandomize=True,
                    database=None,
                    deadline=None,
                    print_blob=False,
                    phases=(Phase.generate,),
                    suppress_health_check=list(HealthCheck),
                ),
            )
        except AssertionError as error:  # trial does not show what hypothesis notes: the steps
            steps = "\n".join(getattr(error, "__notes__", ()))
            raise AssertionError(f"{error}\n{steps}\n{service.report()}") from None
        self.assertGreater(service.restarts, 0)
