"""The client in examples/python, which was written from docs/protocol.md alone, against the real server.

What it cannot do right, the document does not say well enough.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fantail_lab import DEADLINE, TIME_SCALE
from fantail_statelab import StateLab, states  # noqa: F401

_CLIENT = Path(__file__).resolve().parents[2] / "examples" / "python" / "fantail_state.py"
sys.path.insert(0, str(_CLIENT.parent))
import fantail_state  # noqa: E402
from fantail_state import State, Watcher  # noqa: E402

Json = Any

JOURNAL_BYTES = 1 << 20


@pytest.fixture
def state(states: StateLab) -> Iterator[State]:
    with State(states.server().address) as state:
        yield state


class HardOfHearing(Watcher):
    """Misses most of the broadcast, and all of it where it is `deaf`; damaged messages are among it."""

    random = random.Random()
    deaf = False

    def _data(self, kind: int, fields: fantail_state.Fields, payload: bytes) -> None:
        if kind == fantail_state.CHUNK and (self.deaf or self.random.random() < 0.7):
            return
        super()._data(kind, fields, payload)


def taken(watcher: Watcher, until: int) -> list[Json]:
    """The changes up to one of that revision."""
    changes: list[Json] = []
    end = time.monotonic() + DEADLINE * TIME_SCALE
    while not changes or changes[-1]["revision"] < until:
        assert time.monotonic() < end, f"revision {until} does not come; the last one was {watcher.revision}"
        change = watcher.next(0.2)
        changes += [change] if change is not None else []
    return changes


def set_in_background(states: StateLab, first: int, count: int, size: int = 10) -> threading.Thread:
    """Sets "n" to the numbers from `first` on, each of them once, also when the server is killed meanwhile."""

    def run() -> None:
        client = states.client()
        for i in range(first, first + count):
            while True:
                with contextlib.suppress(Exception):
                    client.call("set", key="n", value=[i, "x" * size])
                    break
                if client.items().get("n", [None])[0] == i:
                    break

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def run(states: StateLab, *arguments: str, server: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"FANTAIL_STATE": server or states.servers[0].address}
    return subprocess.run(
        ["/usr/bin/python3", _CLIENT, *arguments], capture_output=True, text=True, env=environment, timeout=DEADLINE
    )


# --- requests ----------------------------------------------------------------------------------------------------------


def test_as_a_command(states: StateLab, state: State) -> None:
    assert run(states, "set", "k", '{"a":[1,2]}').returncode == 0
    assert json.loads(run(states, "get", "k").stdout) == {"a": [1, 2]}
    absent = run(states, "get", "other")
    assert (absent.returncode, absent.stdout) == (1, "")
    assert "key 'other' is absent" in absent.stderr
    nobody = run(states, "get", "k", server=f"tcp://127.0.0.1:{states.lab.ports.take(1)}")
    assert nobody.returncode == 4
    assert "is 'fantail-state serve' running there?" in nobody.stderr


def test_what_it_sets_others_see_and_the_other_way_round(states: StateLab, state: State) -> None:
    state.set("k", {"ä": [1, None, "x"]})
    assert states.items() == {"k": {"ä": [1, None, "x"]}}
    states.set("n", 41)
    assert (state.get("n"), state.increment("n"), state.get("n"), state.get("absent", 7)) == (41, 42, 42, 7)
    assert state.append("list", "x") == 1
    state.compare_and_set("n", 42, 43)
    condition = {"key": "n", "op": "equal", "value": 43}
    assert state.call("txn", **{"if": [condition], "then": [["delete", "list"]]})["succeeded"]
    assert state.items() == {"k": {"ä": [1, None, "x"]}, "n": 43}
    for key in state.items():
        state.delete(key)
    assert states.items() == {}


def test_what_is_refused_says_why(state: State) -> None:
    state.set("k", "text")
    for method, arguments, kind in (
        ("get", {"key": "absent"}, "key_absent"),
        ("increment", {"key": "k"}, "wrong_type"),
        ("cas", {"key": "k", "old": 1, "value": 2}, "condition_failed"),
        ("set", {"key": ""}, "bad_request"),
        ("nonsense", {}, "unknown_method"),
    ):
        with pytest.raises(fantail_state.Refused) as refused:
            state.call(method, **arguments)
        assert refused.value.kind == kind
    assert state.items() == {"k": "text"}


def test_a_large_answer_comes_whole(state: State) -> None:
    values = {f"k{i}": "x" * 1000 for i in range(3000)}
    state.call("update", values=values)
    assert state.items() == values


# --- watching ----------------------------------------------------------------------------------------------------------


def test_a_watcher_hears_what_it_asked_for(states: StateLab, state: State) -> None:
    other = states.client()
    every, some, own = state.watch(), state.watch("a", prefix="p/"), state.watch("a", own=True)
    for key, value in (("a", 1), ("b", 1), ("p/x", 1), ("a", 1), ("a", 2)):
        other.call("set", key=key, value=value)
    state.set("a", 3)
    other.call("delete", key="a")
    last = state.call("info")["revision"]

    assert [(c["key"], c.get("after")) for c in taken(every, last)] == [
        ("a", 1),
        ("b", 1),
        ("p/x", 1),
        ("a", 2),  # an identical one is none
        ("a", None),
    ]
    assert [c["key"] for c in taken(some, last)] == ["a", "p/x", "a", "a"]
    assert [c.get("after") for c in taken(own, last)] == [1, 2, 3, None]
    for watcher in (every, some, own):
        watcher.close()


def test_one_that_comes_late_hears_all_from_the_beginning(states: StateLab, state: State) -> None:
    for i in range(100):
        state.set("n", i)
    watcher = state.watch(since=0, own=True)
    assert [c["after"] for c in taken(watcher, 100)] == list(range(100))
    watcher.close()


def test_what_the_broadcast_does_not_bring_is_fetched(states: StateLab, state: State, seed: int) -> None:
    count = 500
    watchers = []
    for deaf in (False, True):
        watcher = HardOfHearing(state, (), None, None, b"")
        watcher.random, watcher.deaf = random.Random(seed), deaf
        watchers.append(watcher)
    writer = set_in_background(states, 0, count, size=2000)
    for watcher in watchers:
        assert [c["after"][0] for c in taken(watcher, count)] == list(range(count))
        watcher.close()
    writer.join()


def test_a_journal_that_begins_anew_hides_nothing(states: StateLab) -> None:
    count = 3000
    server = states.server("--compact-at", JOURNAL_BYTES)
    state = State(server.address)
    watcher = state.watch()
    writer = set_in_background(states, 0, count, size=500)
    assert [c["after"][0] for c in taken(watcher, count)] == list(range(count))
    writer.join()
    assert server.compactions() > 1
    watcher.close()
    with pytest.raises(fantail_state.Refused) as refused:
        state.watch(since=0)
    assert refused.value.kind == "compacted"


def test_the_items_are_those_of_the_server_also_when_everything_changed_meanwhile(states: StateLab, state: State) -> None:
    for i in range(50):
        state.set(f"k{i}", "x" * 10_000)
    writer = set_in_background(states, 0, 300)
    watcher = state.watch()
    writer.join()
    state.set("end", 1)
    states.client().call("delete", key="k7")
    taken(watcher, state.call("info")["revision"])
    assert watcher.items == state.items()
    watcher.close()


def test_a_killed_server_makes_no_gap_and_nothing_twice(states: StateLab, state: State, seed: int) -> None:
    server = states.servers[0]
    chance = random.Random(seed)
    watcher = state.watch()
    changes: list[Json] = []
    for _ in range(3):
        writer = set_in_background(states, 0, 200)
        end = watcher.revision + chance.randrange(1, 200)
        changes += taken(watcher, end)
        server.restart()
        writer.join()
        changes += taken(watcher, states.revision())
    assert [c["revision"] for c in changes] == list(range(1, states.revision() + 1))
    watcher.close()
