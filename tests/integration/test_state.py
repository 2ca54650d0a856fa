"""fantail-state as a user meets it: commands, exit codes, watchers, mistakes. z<N> in a name is a row of PARITY.md."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from fantail_lab import least_of_tries, pace
from fantail_statelab import (
    ERROR,
    FALSE,
    OK,
    TIMEOUT,
    UNREACHABLE,
    USAGE,
    Client,
    Read,
    Refused,
    StateLab,
    Watcher,
    assert_no_holes,
    cpu_seconds,
    replayed,
    states,  # noqa: F401
)

Json = Any
MISSING = object()

KINDS = ("tcp", "ipc")


def dead_address(states: StateLab) -> str:
    return f"tcp://127.0.0.1:{states.lab.ports.take(1)}"


# --- the dictionary ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_z1_one_server_holds_what_a_killed_client_has_set(states: StateLab, kind: str) -> None:
    states.server(kind=kind)
    setter = states.other_client("set", {"key": "k", "value": {"deep": [1, None, "ü"]}})
    states.lab.wait_until(lambda: setter.lines() == [b"done"], "A has set the key")
    assert states.done("get", "k") == {"deep": [1, None, "ü"]}

    setter.kill9()

    assert states.done("get", "k") == {"deep": [1, None, "ü"]}


def test_z2_the_operations_of_a_dictionary(states: StateLab) -> None:
    states.server()
    client = states.client()
    client.call("update", values={"a": 1, "b": [2], "c": None})

    assert client.call("has", key="a")["value"] is True
    assert client.call("has", key="z")["value"] is False
    assert client.call("get", key="b")["value"] == [2]
    assert client.call("get", key="c", default=7)["value"] is None
    assert client.call("get", key="z", default=7)["value"] == 7
    assert client.call("keys")["value"] == ["a", "b", "c"]
    assert client.call("size")["value"] == 3
    assert client.call("items")["value"] == client.call("copy")["value"] == {"a": 1, "b": [2], "c": None}
    assert client.call("setdefault", key="a", value=9)["value"] == 1
    assert client.call("setdefault", key="d", value=9)["value"] == 9
    assert client.call("pop", key="d")["value"] == 9
    assert client.call("pop", key="d", default="none")["value"] == "none"
    item = client.call("popitem")
    assert {item["key"]: item["value"]} == {"c": None}
    client.call("replace", values={"only": True})
    assert client.items() == {"only": True}
    client.call("delete", key="only")
    assert client.call("size")["value"] == 0
    client.call("clear")
    assert client.items() == {}


@pytest.mark.parametrize("method", ("get", "delete", "pop", "touch", "life"))
def test_z2_a_missing_key_is_the_same_error_everywhere(states: StateLab, method: str) -> None:
    states.server()

    with pytest.raises(Refused, match="key 'nobody' is absent") as refused:
        states.client().call(method, key="nobody")

    assert refused.value.kind == "key_absent"


def test_z2_popping_from_nothing_and_unknown_operations_are_refused(states: StateLab) -> None:
    states.server()
    client = states.client()
    for method, kind in (("popitem", "empty"), ("fly", "unknown_method")):
        with pytest.raises(Refused) as refused:
            client.call(method)
        assert refused.value.kind == kind
    assert states.revision() == 0


def test_z2_commands_say_what_they_found(states: StateLab) -> None:
    states.server()
    states.set("word", "text")
    assert states.run("get", "word").out == '"text"\n'
    assert states.run("get", "--string", "word").out == "text\n"
    assert states.done("set", "--string", "word", "bare {") is None
    assert states.done("get", "word") == "bare {"
    assert states.done("incr", "n") == 1
    assert states.done("incr", "n", "41") == 42
    assert states.done("decr", "n", "2") == 40
    assert states.done("incr", "n", "0.5") == 40.5
    assert states.done("append", "list", "1") == 1
    assert states.done("append", "list", '{"a":2}') == 2
    assert states.done("patch", "o", '{"a":{"b":1,"c":2}}') == {"a": {"b": 1, "c": 2}}
    assert states.done("patch", "o", '{"a":{"b":null},"d":3}') == {"a": {"c": 2}, "d": 3}
    assert states.run("keys").out == "list\nn\no\nword\n"
    assert states.run("keys", "l").out == "list\n"
    assert states.done("pop", "n") == 40.5
    assert states.items() == {"list": [1, {"a": 2}], "o": {"a": {"c": 2}, "d": 3}, "word": "bare {"}
    assert states.done("clear") is None
    assert states.items() == {}


def test_z3_what_was_read_is_a_copy(states: StateLab) -> None:
    states.server()
    client = states.client()
    client.call("set", key="k", value={"a": [1]})
    client.items()["k"]["a"].append(2)
    assert client.items() == {"k": {"a": [1]}}


def test_z4_namespaces_do_not_see_each_other(states: StateLab) -> None:
    states.server()
    watcher = states.watch("--namespace", "ns1", "--from", "beginning", "--count", 2)

    for name_space, value in (("ns2", 2), ("ns1", 1), ("default", 0), ("ns2", 3), ("ns1", 4)):
        states.set("k", value, "--namespace", name_space)

    assert watcher.wait_exit() == OK
    assert [(event["namespace"], event["after"]) for event in watcher.events()] == [("ns1", 1), ("ns1", 4)]
    assert [states.items(name_space) for name_space in ("default", "ns1", "ns2")] == [{"k": 0}, {"k": 4}, {"k": 3}]
    assert states.done("clear", "--namespace", "ns1") is None
    assert [states.items(name_space) for name_space in ("default", "ns1", "ns2")] == [{"k": 0}, {}, {"k": 3}]


@pytest.mark.parametrize("command", (("get", "k"), ("set", "k", "1"), ("watch",), ("wait", "k"), ("dump",)))
def test_z4_an_empty_namespace_is_refused(states: StateLab, command: tuple[str, ...]) -> None:
    states.server()
    done = states.run(command[0], "--namespace", "", *command[1:])
    assert (done.code, done.out) == (USAGE, "")
    assert "namespace" in done.err and "must not be empty" in done.err


def test_z5_two_creators_merge(states: StateLab) -> None:
    states.server()
    states.done("load", stdin='{"a":1,"both":"first"}')
    states.done("load", stdin='{"b":2,"both":"second"}')
    assert states.items() == {"a": 1, "b": 2, "both": "second"}
    states.done("load", "--replace", stdin='{"c":3}')
    assert states.items() == {"c": 3}


# --- broadcast ---------------------------------------------------------------------------------------------------------


def test_z6_each_change_is_one_message(states: StateLab) -> None:
    """Reads and what is refused are none."""
    count = 100
    states.server()
    subscription = states.subscription()
    assert subscription.until_beacons(1) == []
    client = states.client()
    for i in range(count):
        client.call("set", key="k", value=i)
        client.call("get", key="k")
        with contextlib.suppress(Refused):
            client.call("append", key="k", value=1)

    messages = subscription.until_beacons(2, after=count)

    assert len(messages) == count
    assert all(message.endswith(b"\n") and message.count(b"\n") == 1 for message in messages)
    assert_no_holes([json.loads(message)["revision"] for message in messages], 1, count)


def test_z6_what_came_before_anybody_listened_is_not_broadcast(states: StateLab) -> None:
    """Who wants history fetches it; a server that was alone for days does not begin with it."""
    states.server()
    client = states.client()
    for i in range(50):
        client.call("set", key="k", value=i)
    subscription = states.subscription()
    assert subscription.until_beacons(2) == []
    client.call("set", key="k", value="new")
    (message,) = subscription.until_beacons(1, after=1)
    assert json.loads(message)["after"] == "new"
    assert [change["revision"] for change in states.history()] == list(range(1, 52))


def test_z6_a_watcher_that_waits_sleeps(states: StateLab) -> None:
    """Time is taken while a key lives out its three seconds; a hundred milliseconds each second are generous."""
    server = states.server()
    watchers = [
        states.watch("k", "--from", "beginning", *flags) for flags in ((), ("--when", "equal", "--value", "9"))
    ]
    states.set("k", 9)
    for watcher in watchers:
        states.wait_events(watcher, 1)
    states.set("short", 1, "--ttl", "3", "--namespace", "other")
    begin = time.monotonic()
    before = {agent.name: cpu_seconds(agent.pid) for agent in (server, *watchers)}

    states.lab.wait_until(lambda: short_key_is_gone(states), "the key of three seconds is gone")

    for agent in (server, *watchers):
        used = cpu_seconds(agent.pid) - before[agent.name]
        assert used < 0.1 * (time.monotonic() - begin), f"{agent.name} took {used:g} s"


def short_key_is_gone(states: StateLab) -> bool:
    pace(0.5)  # asking costs time itself
    return states.items("other") == {}


ANY_OPERATION: tuple[Callable[[random.Random, str], tuple[str, Json]], ...] = (
    lambda rng, key: ("set", {"key": key, "value": rng.choice((None, 1, 1.5, "x", [], {"a": [1]}))}),
    lambda rng, key: ("delete", {"key": key}),
    lambda rng, key: ("increment", {"key": key}),
    lambda rng, key: ("append", {"key": key, "value": rng.randrange(9)}),
    lambda rng, key: ("update", {"values": {key: 1, "more": rng.randrange(3)}}),
    lambda rng, key: ("merge_patch", {"key": key, "patch": {"p": rng.choice((None, 1))}}),
    lambda rng, key: ("replace", {"values": {key: 0}}),
    lambda rng, key: ("txn", {"then": [["set", "t", rng.random()], ["delete", key]]}),
)


def test_z7_the_events_replayed_give_the_state(states: StateLab) -> None:
    states.server()
    client = states.client()
    rng = states.lab.rng
    for _ in range(500):
        method, arguments = rng.choice(ANY_OPERATION)(rng, f"k{rng.randrange(8)}")
        with contextlib.suppress(Refused):
            client.call(method, **arguments)

    events = states.history()

    assert_no_holes([event["revision"] for event in events], 1, states.revision())
    assert replayed(events) == states.items()
    times = [event["time"] for event in events]
    assert times == sorted(times)
    for i, event in enumerate(events):
        before = replayed(events[:i])
        if "key" in event:
            assert event.get("before", MISSING) == before.get(event["key"], MISSING), event
        else:
            assert event["before"] == {key: before[key] for key in event["keys"] if key in before}, event


def test_z7_a_change_to_the_same_is_told_to_who_asks(states: StateLab) -> None:
    states.server()
    for value in (1, 1, 2):
        states.set("k", value)
    all_of_them = states.watch("--from", "beginning", "--identical", "--count", 3)
    changes = states.watch("--from", "beginning", "--count", 2)
    for watcher in (all_of_them, changes):
        assert watcher.wait_exit() == OK
    assert all_of_them.revisions() == [1, 2, 3]
    assert [event.get("before") == event["after"] for event in all_of_them.events()] == [False, True, False]
    assert changes.revisions() == [1, 3]


# --- what a watcher hears of -------------------------------------------------------------------------------------------


def test_z8_keys_prefixes_and_exclusions(states: StateLab) -> None:
    states.server()
    for key in ("k1", "k2", "other", "k1", "k2"):
        states.done("incr", key)
    states.done("load", stdin='{"k2":10,"k3":10}')
    states.done("incr", "last")
    states.done("load", stdin='{"k1":0,"k3":0,"last":0,"z":0}')
    wanted: dict[tuple[str, ...], list[int]] = {
        (): [1, 2, 3, 4, 5, 6, 7, 8],
        ("k1",): [1, 4, 8],
        ("k1", "k3"): [1, 4, 6, 8],
        ("--exclude", "k1"): [2, 3, 5, 6, 7, 8],
        ("--exclude", "k1", "--exclude", "k2", "--exclude", "k3"): [3, 7, 8],
        ("--prefix", "k"): [1, 2, 4, 5, 6, 8],
        ("--prefix", "k", "--exclude", "k2"): [1, 4, 6, 8],
        ("--prefix", "o", "--prefix", "l", "k1"): [1, 3, 4, 7, 8],
    }

    watchers = {
        flags: states.watch("--from", "beginning", "--count", len(revisions), *flags)
        for flags, revisions in wanted.items()
    }

    for flags, watcher in watchers.items():
        assert watcher.wait_exit() == OK
        assert watcher.revisions() == wanted[flags], flags


@pytest.mark.parametrize(
    ("flags", "word"),
    (
        (("a", "b", "--identical"), "identical"),
        (("a", "--exclude", "a"), "wanted and excluded"),
        (("--when", "truthy"), "of one key"),
        (("a", "b", "--when", "truthy"), "of one key"),
        (("a", "--when", "equal"), "--value"),
        (("a", "--when", "odd"), "must be one of"),
        (("a", "--value", "1"), "--when"),
        (("a", "--when", "equal", "--value", "{"), "JSON"),
        (("--if", ""), "--if"),
        (("--if", "/a <"), "JSON"),
        (("--if", "/a < x"), "JSON"),
        (("--if", "/a~ < 1"), "pointer"),
        (("--if", "/a", "a", "--when", "truthy"), "exclude each other"),
        (("",), "must not be empty"),
        (("--from", "yesterday"), "--from"),
        (("--from", "0"), "--from"),
        (("--from", "-1"), "--from"),
        (("--count", "-1"), "--count"),
        (("--timeout", "soon"), "--timeout"),
    ),
)
def test_z8_what_a_watcher_cannot_want_is_refused(states: StateLab, flags: tuple[str, ...], word: str) -> None:
    done = states.run("watch", "--check", *flags, server="tcp://127.0.0.1:1")
    assert (done.code, done.out) == (USAGE, ""), done
    assert word in done.err
    assert one_sentence(done.err)


def one_sentence(text: str) -> bool:
    """Something is said, once, and no more than two lines: what is wrong, and perhaps what to do."""
    lines = text.strip().splitlines()
    return 0 < len(lines) <= 2 and len(set(lines)) == len(lines)


def test_z9_a_test_fires_when_it_becomes_true(states: StateLab) -> None:
    states.server()
    watcher = states.watch("--if", "gold_price < 40", "--from", "beginning", "--count", 1)
    for price in ("50", "45", '"cheap"', "39", "38"):
        states.done("set", "gold_price", price)
    assert watcher.wait_exit() == OK
    (event,) = watcher.events()
    assert (event["before"], event["after"]) == ("cheap", 39)


def test_z9_the_event_brings_the_snapshot_that_made_the_test_true(states: StateLab) -> None:
    """Also with a test of several keys, of which only one has changed."""
    states.server()
    watcher = states.watch("--if", "/a > 1 && /deep/1/b == \"x\"", "--from", "beginning", "--count", 1)
    states.done("load", stdin='{"a":0,"deep":[0,{"b":"x"}],"c":null}')
    states.set("a", 2)
    states.set("a", 3)
    assert watcher.wait_exit() == OK
    (event,) = watcher.events()
    assert event["after"] == 2
    assert event.get("items") == {"a": 2, "deep": [0, {"b": "x"}], "c": None}


def test_z9_a_test_that_holds_already_fires_at_once(states: StateLab) -> None:
    states.server()
    states.done("load", stdin='{"a":1,"b":2}')
    done = states.run("wait", "--if", "/a == 1 && /b >= 2")
    assert done.code == OK
    event = json.loads(done.out)
    assert (event["kind"], event["revision"], event["items"]) == ("holds", 1, {"a": 1, "b": 2})


def test_z9_the_namespace_is_not_kept_for_every_change_that_waits(states: StateLab) -> None:
    """Each event has all of it, and a chunk of the journal has many events."""
    states.server()
    client = states.client()
    for i in range(20):
        client.call("set", key=f"large{i}", value="x" * 100_000)
    client.call("set", key="go", value=0)
    for i in range(1000):
        client.call("set", key="n", value=i)
    done = states.run("watch", "--if", "/go == 0", "--from", "beginning", "--count", 3, memory_mib=200)
    assert done.code == OK, done.err
    assert [json.loads(line)["revision"] for line in done.out.splitlines()] == [21, 22, 23]


@pytest.mark.slow
def test_z9_the_snapshot_is_of_one_moment_also_while_everything_changes(states: StateLab) -> None:
    """The first and the last key are changed together all the time; between them is enough for many pieces."""
    states.server()
    client = states.client()
    for i in range(60):
        client.call("set", key=f"m{i}", value="x" * 100_000)
    ending = threading.Event()

    def change() -> None:
        client = states.client()
        while not ending.is_set():
            client.call("txn", then=[["increment", "a"], ["increment", "z"]])

    writer = threading.Thread(target=change, daemon=True)
    writer.start()
    try:
        for _ in range(2):
            done = states.run("wait", "--if", "/a > 0")
            event = json.loads(done.out)
            if event["kind"] == "holds":
                assert event["items"]["a"] == event["items"]["z"] == event["revision"] - 60
    finally:
        ending.set()
        writer.join()


def same(a: Json, b: Json) -> bool:
    """As JSON has it: true is not 1."""
    return a is not MISSING and isinstance(a, bool) == isinstance(b, bool) and a == b


def number(value: Json) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


CONDITIONS: dict[tuple[str, ...], Callable[[Json], bool]] = {
    ("equal", "1"): lambda v: same(v, 1),
    ("equal", "null"): lambda v: v is None,
    ("equal", '{"a":0}'): lambda v: same(v, {"a": 0}),
    ("not-equal", "1"): lambda v: not same(v, 1),
    ("less", "1"): lambda v: number(v) and v < 1,
    ("less-equal", "1"): lambda v: number(v) and v <= 1,
    ("greater", "1"): lambda v: number(v) and v > 1,
    ("greater-equal", "1"): lambda v: number(v) and v >= 1,
    ("less", '"y"'): lambda v: isinstance(v, str) and v < "y",
    ("truthy",): lambda v: v is not MISSING and bool(v),
    ("falsy",): lambda v: v is MISSING or not v,
    ("null",): lambda v: v is None,
    ("not-null",): lambda v: v is not MISSING and v is not None,
    ("available",): lambda v: v is not MISSING,
    ("absent",): lambda v: v is MISSING,
}
VALUES = (0, MISSING, None, False, "", "x", "z", [], [0], {}, {"a": 0}, True, 0.5, 2, 1, -1, MISSING)


def condition_flags(condition: tuple[str, ...]) -> tuple[str, ...]:
    return ("--when", condition[0], *(("--value", condition[1]) if len(condition) > 1 else ()))


def test_z10_each_condition_after_each_change(states: StateLab) -> None:
    """All values twice: one event too many in the first round shows in the list, although watchers count."""
    states.server()
    client = states.client()
    revisions = {}
    for value in VALUES * 2:
        if value is MISSING:
            client.call("delete", key="k")
        else:
            client.call("set", key="k", value=value)
        revisions[len(revisions) + 1] = value
    wanted = {c: [r for r, value in revisions.items() if holds(value)] for c, holds in CONDITIONS.items()}

    watchers = {
        c: states.watch("k", "--from", "beginning", "--count", len(w), *condition_flags(c)) for c, w in wanted.items()
    }

    for condition, watcher in watchers.items():
        assert watcher.wait_exit() == OK
        heard = watcher.revisions()
        assert heard == wanted[condition], (condition, [revisions[r] for r in set(heard) ^ set(wanted[condition])])


def test_z10_each_condition_of_a_key_that_is_missing(states: StateLab) -> None:
    """What holds of it fires at once; the others wait until a value comes of which it holds."""
    states.server()
    keys = {condition: f"k{i}" for i, condition in enumerate(CONDITIONS)}
    waiting = {
        condition: states.watch(key, *condition_flags(condition), command="wait") for condition, key in keys.items()
    }
    at_once = [condition for condition, holds in CONDITIONS.items() if holds(MISSING)]
    for condition in at_once:
        assert waiting[condition].wait_exit() == OK
        (event,) = waiting[condition].events()
        assert (event["kind"], event["items"]) == ("holds", {}), condition
    for condition in CONDITIONS.keys() - set(at_once):
        assert waiting[condition].alive, f"{condition} does not hold of a key that is missing"
        holds = CONDITIONS[condition]
        good = next(value for value in VALUES if holds(value))
        for value in [v for v in VALUES if v is not MISSING and not holds(v)] + [good]:
            states.client().call("set", key=keys[condition], value=value)
        assert waiting[condition].wait_exit() == OK
        (event,) = waiting[condition].events()
        made_it_true = event["items"][keys[condition]] if event["kind"] == "holds" else event["after"]
        assert same(made_it_true, good) or made_it_true is good, condition


@pytest.mark.parametrize("condition", CONDITIONS, ids="-".join)
def test_z10_each_condition_that_holds_already(states: StateLab, condition: tuple[str, ...]) -> None:
    states.server()
    value = next(value for value in VALUES if CONDITIONS[condition](value))
    if value is not MISSING:
        states.set("k", value)
    done = states.run("wait", "k", *condition_flags(condition))
    assert done.code == OK
    assert json.loads(done.out)["kind"] == "holds"


# --- how a watcher hears -----------------------------------------------------------------------------------------------


# Quick to start; the shell reads byte by byte, so not for what is large.
_WITHOUT_PROCESSES = 'IFS= read -r line; printf "%s\\n" "$line" >> "$0"; [ -e "$2" ] || read -r line < "$1" || :'


class SlowReader:
    """A COMMAND for `watch -- COMMAND`: keeps its input, and ends when the test lets it."""

    def __init__(self, states: StateLab, *flags: Any, large: bool = False) -> None:
        self._states = states
        self._kept = states.lab.root / "kept"
        self._gate = states.lab.root / "gate"
        os.mkfifo(self._gate)
        self._open = states.lab.root / "open"
        script = 'cat >> "$0"; [ -e "$2" ] || cat < "$1"' if large else _WITHOUT_PROCESSES
        self.watcher: Watcher = states.watch(*flags, "--", "sh", "-c", script, self._kept, self._gate, self._open)

    def events(self) -> list[Json]:
        return [json.loads(line) for line in self._kept.read_text().splitlines()] if self._kept.exists() else []

    def wait_event(self, number: int) -> Json:
        """The reader has it, and stands still."""
        return self._states.lab.wait_until(
            lambda: self.events()[number - 1 :], f"event {number} is read", explain=self.watcher.report
        )[0]

    def let(self) -> None:
        """One reader ends."""

        def opened() -> bool:
            with contextlib.suppress(OSError):  # nobody stands there yet
                os.close(os.open(self._gate, os.O_WRONLY | os.O_NONBLOCK))
                return True
            return False

        self._states.lab.wait_until(opened, "a reader waits at the gate")

    def let_all(self) -> None:
        """From now on none stands still."""
        self._open.touch()
        self.let()


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "bytes_each"), ((1300, 1), (100, 100_000)), ids=("many", "large"))
def test_z11_a_slow_reader_gets_every_change(states: StateLab, changes: int, bytes_each: int) -> None:
    """It stands still for longer than a silent link lives; what does not fit into the queues is fetched later."""
    states.server()
    first, last = 1, changes
    reader = SlowReader(states, "k", "--from", "beginning", "--count", last, large=bytes_each > 1)
    client = states.client()
    client.call("set", key="k", value=[first, "x" * bytes_each])
    assert reader.wait_event(1)["revision"] == first
    for i in range(first + 1, last + 1):
        client.call("set", key="k", value=[i, "x" * bytes_each])
    pace(5)

    reader.let_all()

    assert reader.watcher.wait_exit(60) == OK
    events = reader.events()
    assert_no_holes([event["revision"] for event in events], first, last)
    assert [event["after"][0] for event in events] == list(range(first, last + 1))


@pytest.mark.parametrize("changes", (10, 200, 1000))
def test_z11_live_gives_the_newest(states: StateLab, changes: int) -> None:
    states.server()
    reader = SlowReader(states, "k", "--from", "beginning", "--live", "--count", 3)
    other = states.watch("k", "--from", "beginning")
    client = states.client()
    client.call("set", key="k", value=1)
    assert reader.wait_event(1)["after"] == 1
    for value in range(2, changes + 1):
        client.call("set", key="k", value=value)
    states.wait_events(other, changes)

    reader.let()
    assert reader.wait_event(2)["after"] == changes
    client.call("set", key="k", value="last")
    reader.let()
    assert reader.wait_event(3)["after"] == "last"
    reader.let()
    assert reader.watcher.wait_exit() == OK


def test_z11_a_late_watcher_begins_where_it_says(states: StateLab) -> None:
    states.server()
    client = states.client()
    for value in range(1, 51):
        client.call("set", key="k", value=value)
    for start, first in (("beginning", 1), ("1", 1), ("17", 17), ("50", 50), ("51", 51)):
        watcher = states.watch("--from", start, "--count", 53 - first)
        client_goes_on = states.revision() < 52
        if start == "51" or client_goes_on:
            for value in range(states.revision() + 1, 53):
                client.call("set", key="k", value=value)
        assert watcher.wait_exit() == OK
        assert_no_holes(watcher.revisions(), first, 52)


def test_z11_a_revision_that_is_yet_to_come_is_refused(states: StateLab) -> None:
    """The next one is not: nothing of it is missed."""
    states.server()
    states.set("k", 1)
    done = states.run("watch", "--from", "3")
    assert (done.code, done.out) == (USAGE, "")
    assert "yet to come" in done.err and "newest is 1" in done.err


def test_z11_from_now_begins_with_what_comes(states: StateLab) -> None:
    """How soon a watcher is there nobody knows; from its first event on it has every one."""
    states.server()
    client = states.client()
    for value in range(1, 11):
        client.call("set", key="k", value=value)
    watcher = states.watch("k")

    def first_revision() -> int:
        client.call("increment", key="k")
        return watcher.revisions()[0] if watcher.count() else 0

    first = states.lab.wait_until(first_revision, "the watcher hears something")

    assert first > 10
    last = states.revision()
    assert_no_holes([event["revision"] for event in states.wait_events(watcher, last - first + 1)], first, last)


@pytest.mark.parametrize("command", ("watch", "wait"))
def test_z11_a_watcher_that_hears_nothing_ends_in_time(states: StateLab, command: str) -> None:
    """Within ten percent, and what it takes to start a program, in the best of some tries."""
    states.server()
    seconds = 1.5

    def wait_in_vain() -> float:
        begin = time.monotonic()
        done = states.run(command, "nobody", "--timeout", seconds)
        took = time.monotonic() - begin
        assert (done.code, done.out) == (TIMEOUT, "")
        assert "nothing came within 1.5 s" in done.err
        assert took >= seconds
        return took

    least_of_tries(wait_in_vain, 1.1 * seconds + 0.2, "the time of --timeout")


def test_z11_the_timeout_begins_again_with_each_event(states: StateLab) -> None:
    states.server()
    watcher = states.watch("k", "--from", "beginning", "--timeout", "1.5")
    for value in range(4):
        states.set("k", value)
        states.wait_events(watcher, value + 1)
        pace(0.5)
    assert watcher.wait_exit() == TIMEOUT
    assert watcher.count() == 4


def test_z13_a_command_runs_once_for_each_event(states: StateLab) -> None:
    states.server()
    kept = states.lab.root / "kept"
    watcher = states.watch("k", "--from", "beginning", "--count", 3, "--", "sh", "-c", 'cat >> "$0"; echo ran', kept)
    for value in (1, 2, 3):
        states.set("k", value)
        states.set("silent", value)
    assert watcher.wait_exit() == OK
    assert [json.loads(line)["after"] for line in kept.read_text().splitlines()] == [1, 2, 3]
    assert watcher.lines() == [b"ran"] * 3


def test_z13_a_command_that_does_not_read_its_input_is_no_matter(states: StateLab) -> None:
    """Also where the input is larger than a pipe."""
    states.server()
    watcher = states.watch("k", "--from", "beginning", "--count", 2, "--", "true")
    for letter in "ab":
        states.client().call("set", key="k", value=letter * 1_000_000)
    assert watcher.wait_exit() == OK


def test_z13_a_watcher_that_is_told_to_end_ends(states: StateLab) -> None:
    """SIGTERM while nothing happens, and between two events."""
    states.server()
    for flags in ((), ("--if", "/k > 0"), ("--from", "beginning", "--", "true")):
        watcher = states.watch("k", *flags)
        states.done("incr", "k")
        assert watcher.terminate() == OK


def test_z13_a_command_that_fails_is_told(states: StateLab) -> None:
    states.server()
    states.set("k", 1)
    for command, word in ((("false",), "'false' ended with 1"), (("/no/such/program",), "/no/such/program")):
        done = states.run("watch", "k", "--from", "1", "--count", 1, "--", *command)
        assert done.code == FALSE
        assert word in done.err
    done = states.run("watch", "k", "--from", "1", "--count", 1, "--")
    assert done.code in (OK, USAGE)


# --- one at a time -----------------------------------------------------------------------------------------------------


def test_z14_an_interrupted_client_leaves_the_operation_whole(states: StateLab) -> None:
    """SIGINT at any moment of a transaction of two keys: both or neither."""
    states.server()
    both = '{"then":[["increment","x",1],["increment","y",1]]}'
    shell = states.shell(
        f"while :; do for s in 0.03 0.06 0.12 0.5; do echo '{both}' | timeout -s INT $s \"$STATE\" txn || :; done; done"
    )
    shell.may_end = True
    states.lab.wait_until(lambda: states.items().get("x", 0) >= 5, "some transactions are done")
    shell.end()
    items = states.items()
    assert items["x"] == items["y"]


def test_z15_one_of_eight_is_the_first(states: StateLab) -> None:
    states.server()
    script = 'for i in 1 2 3 4 5 6 7 8; do ("$STATE" cas k --revision 0 "$i" 2>>lost && echo "$i") & done; wait'
    for _ in range(5):
        shell = states.shell(f"cd {states.lab.root}\n{script}")
        assert shell.wait_exit() == OK
        (winner,) = shell.lines()
        assert states.done("get", "k") == int(winner)
        states.done("del", "k")
        assert (states.lab.root / "lost").read_text().count("not 0") == 7
        (states.lab.root / "lost").unlink()


# --- who is there ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_z16_ping_and_time(states: StateLab, kind: str) -> None:
    server = states.server(kind=kind)
    assert states.done("ping") == server.pid
    more = states.done("ping", "--json")
    assert more["pid"] == server.pid and 0 < more["ms"] < 5000
    before = time.time_ns()
    between = states.done("time")
    assert before <= between <= time.time_ns()


@pytest.mark.parametrize("who", ("nobody", "a stopped server"))
def test_z16_ping_of_the_dead_ends_in_time(states: StateLab, who: str) -> None:
    """Within ten percent, and what it takes to start a program, in the best of some tries."""
    address: Any = dead_address(states)
    if who == "a stopped server":
        address = states.server()
        address.freeze()
    seconds = 1.5

    def ping() -> float:
        begin = time.monotonic()
        done = states.run("ping", "--timeout", seconds, server=address)
        took = time.monotonic() - begin
        assert (done.code, done.out) == (UNREACHABLE, "")
        assert took >= 0.9 * seconds
        return took

    least_of_tries(ping, 1.1 * seconds + 0.2, "the time of --timeout")
    if who == "a stopped server":
        address.thaw()
        assert states.done("ping") == address.pid


def test_z17_an_address_in_use_is_told_with_the_remedy(states: StateLab) -> None:
    server = states.server()
    publish = states.done("info")["publish"]
    for flags, address in (
        (("--endpoint", server.address), server.address),
        (("--endpoint", dead_address(states), "--publish", publish), publish),
        (("--endpoint", dead_address(states), "--publish", server.address), server.address),
    ):
        done = states.serve(*flags)
        assert (done.code, done.out) == (USAGE, "")
        assert address in done.err and "in use" in done.err and "is another fantail running here?" in done.err
        assert "choose another with --" in done.err
    assert states.done("ping") == server.pid


def test_z17_a_socket_file_in_use_is_told(states: StateLab) -> None:
    """And the first server keeps it."""
    server = states.server(kind="ipc")
    done = states.serve("--endpoint", server.address)
    assert (done.code, done.out) == (USAGE, "")
    assert "in use" in done.err
    assert states.done("ping") == server.pid


def test_z17_a_state_directory_in_use_is_told(states: StateLab) -> None:
    server = states.server()
    done = states.serve("--endpoint", dead_address(states), "--state-dir", str(server.state_dir))
    assert (done.code, done.out) == (USAGE, "")
    assert str(server.state_dir) in done.err and "in use" in done.err and str(server.pid) in done.err
    assert states.done("ping") == server.pid


BAD_ENDPOINTS = (
    "localhost:5560",
    "http://127.0.0.1:1",
    "tcp://",
    "tcp://127.0.0.1",
    "tcp://127.0.0.1:x",
    "tcp://127.0.0.1:99999",
    "ipc://",
    "udp://1.2.3.4:5",
)


@pytest.mark.parametrize("address", BAD_ENDPOINTS)
def test_z17_a_bad_endpoint_is_told_by_everybody(states: StateLab, address: str) -> None:
    for done in (
        states.serve("--endpoint", address),
        states.serve("--endpoint", dead_address(states), "--publish", address),
        states.run("get", "k", server=address),
        states.run("get", "k", environment={"FANTAIL_STATE": address}),
        states.run("watch", "k", server=address),
        states.run("ping", server=address),
    ):
        assert (done.code, done.out) == (USAGE, ""), done
        assert address in done.err and one_sentence(done.err), done


def test_z17_nobody_there_is_told_with_a_hint(states: StateLab) -> None:
    address = dead_address(states)
    for command in (("get", "k"), ("set", "k", "1"), ("dump",), ("txn",), ("watch", "k"), ("info",)):
        timeout = () if command[0] == "watch" else ("--timeout", "0.3")
        done = states.run(*command, *timeout, server=address, stdin="{}")
        assert (done.code, done.out) == (UNREACHABLE, ""), done
        assert address in done.err and "is 'fantail-state serve' running there?" in done.err
        assert one_sentence(done.err)


def test_z17_another_version_of_the_protocol_is_refused(states: StateLab) -> None:
    server = states.server()
    client = Client(server.address, major=2)
    try:
        kind, body = client.greet()
    finally:
        client.close()
    assert kind == ERROR
    assert "version 2" in Read(body).text(1) and "version 1" in Read(body).text(1)
    states.lab.wait_until(lambda: "version 2" in server.stderr(), "the server logs it")
    assert states.done("ping") == server.pid


def test_z17_the_environment_names_the_server_and_the_flag_wins(states: StateLab) -> None:
    first, second = states.server(), states.server()
    assert json.loads(states.run("ping", environment={"FANTAIL_STATE": second.address}).out) == second.pid
    done = states.run("ping", "--server", first.address, environment={"FANTAIL_STATE": second.address})
    assert json.loads(done.out) == first.pid


@pytest.mark.parametrize("kind", KINDS)
def test_z18_a_server_outlives_its_clients_and_they_share_it(states: StateLab, kind: str) -> None:
    server = states.server(kind=kind)
    one, two = states.client(), states.client()
    one.call("set", key="k", value=1)
    assert two.call("increment", key="k")["value"] == 2
    one.close()
    two.close()
    assert states.done("get", "k") == 2
    assert server.terminate() == 0
    server.start()
    assert states.done("get", "k") == 2
    assert states.revision() == 2


# --- keys that do not last ---------------------------------------------------------------------------------------------


def test_a_key_with_a_time_to_live_expires_and_watchers_see_it(states: StateLab) -> None:
    states.server()
    watcher = states.watch("--from", "beginning")
    states.set("k", "v", "--ttl", "0.7")
    states.set("stays", 1, "--ttl", "600")
    assert states.done("get", "k") == "v"

    event = states.wait_events(watcher, 3)[2]

    assert (event["kind"], event["key"], event["before"]) == ("expire", "k", "v")
    assert "after" not in event
    assert states.run("get", "k").code == FALSE
    assert states.items() == {"stays": 1}


def test_set_again_a_key_lives_on(states: StateLab) -> None:
    states.server()
    watcher = states.watch("--from", "beginning")
    for key in ("again", "longer", "goes"):
        states.set(key, 1, "--ttl", "1.5")
    states.set("again", 2)
    states.set("longer", 2, "--ttl", "600")
    event = states.wait_events(watcher, 6)[5]
    assert (event["kind"], event["key"]) == ("expire", "goes")
    assert states.items() == {"again": 2, "longer": 2}


def test_a_key_whose_time_ends_while_the_server_is_down_expires_then(states: StateLab) -> None:
    server = states.server()
    watcher = states.watch("--from", "beginning")
    states.set("k", 1, "--ttl", "0.5")
    states.wait_events(watcher, 1)
    server.kill9()
    pace(0.6)
    server.start()
    event = states.wait_events(watcher, 2)[1]
    assert (event["kind"], event["key"], event["revision"]) == ("expire", "k", 2)


def test_a_session_key_goes_with_the_killed_command(states: StateLab) -> None:
    states.server()
    watcher = states.watch("--from", "beginning")
    holder = states.background("set", "--session", "--lease", "0.5", "k", "1")
    states.wait_events(watcher, 1)
    states.set("other", 1)

    holder.kill9()

    event = states.wait_events(watcher, 3)[2]
    assert (event["kind"], event["key"], event["before"]) == ("expire", "k", 1)
    assert states.items() == {"other": 1}


def test_a_session_key_lives_while_the_command_does(states: StateLab) -> None:
    """Several leases long, told by a key with a time to live; and ends with it at once."""
    states.server()
    watcher = states.watch("--from", "beginning")
    holder = states.background("set", "--session", "--lease", "0.6", "k", "1")
    states.wait_events(watcher, 1)
    states.set("clock", 1, "--ttl", "2.5")
    assert states.wait_events(watcher, 3)[2]["key"] == "clock"
    assert states.items() == {"k": 1}
    assert holder.terminate() == OK
    event = states.wait_events(watcher, 4)[3]
    assert (event["kind"], event["key"]) == ("expire", "k")


@pytest.mark.slow
def test_a_session_key_outlives_a_restart_of_the_server(states: StateLab) -> None:
    """Its holder is still there, for longer than the server waits for holders to come back."""
    server = states.server()
    watcher = states.watch("--from", "beginning")
    states.background("set", "--session", "--lease", "1", "k", "1")
    states.wait_events(watcher, 1)
    server.restart()
    states.set("clock", 1, "--ttl", "6.5")
    assert states.wait_events(watcher, 3)[2]["key"] == "clock"
    assert states.items() == {"k": 1}


def test_a_session_key_of_one_that_died_with_the_server_goes_when_its_lease_is_over(states: StateLab) -> None:
    server = states.server()
    watcher = states.watch("--from", "beginning")
    holder = states.background("set", "--session", "--lease", "0.5", "k", "1")
    states.wait_events(watcher, 1)
    server.kill9()
    holder.kill9()
    server.start()
    event = states.wait_events(watcher, 2)[1]
    assert (event["kind"], event["key"], event["before"]) == ("expire", "k", 1)


# --- the journal as a stream -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ("tcp", "ipc"))
def test_an_ordinary_consumer_collects_the_journals(states: StateLab, kind: str) -> None:
    """Byte-exact, from the beginning, over compactions and a killed server."""
    lab = states.lab
    server = states.server("--compact-at", "1MiB", kind=kind)
    publish = states.done("info")["publish"]
    for key in "abc":
        states.set(key, {"of": key})
    out = lab.root / "collected"
    consumer = lab.bare(
        "fantail-consumer", "--connect", publish, "--topic", "state", "--from", "beginning",
        "--output", f"mirror:{out}", "--output", f"file:{lab.root}/merged", name="collector",
    )  # fmt: skip
    consumer.start()

    def journals() -> list[bytes]:
        """Those that are collected, the oldest first."""
        files = [path for path in out.rglob("journal.jsonl*") if path.is_file()]
        return [path.read_bytes() for path in sorted(files, key=lambda path: (path.name == "journal.jsonl", path.name))]

    def ours() -> bytes:
        return max(server.state_dir.glob("journal-*.jsonl"), key=lambda path: int(path.stem.split("-")[1])).read_bytes()

    lab.wait_until(lambda: journals() == [ours()], "what was there is collected")
    for compactions in (1, 2):
        while server.compactions() < compactions:
            states.set("big", "x" * 50_000)
        states.set("after", compactions)
        lab.wait_until(lambda: len(journals()) == compactions + 1 and journals()[-1] == ours(), "the next journal is collected")
    server.restart()
    states.set("again", 1)
    lab.wait_until(lambda: journals()[-1] == ours(), "it goes on after the restart")
    assert consumer.terminate() == OK
    revisions = [json.loads(line)["revision"] for text in journals() for line in text.splitlines() if b'"time"' in line]
    assert sorted(set(revisions)) == list(range(1, states.revision() + 1))
    merged = (lab.root / "merged").read_bytes().splitlines()
    assert sorted(merged) == sorted(line for text in journals() for line in text.splitlines())
