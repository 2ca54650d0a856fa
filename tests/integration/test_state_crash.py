"""fantail-state when it is killed, when its disk is full, and when its journal begins anew: what was acknowledged counts.

An operation whose answer never came took effect or did not, as a whole; everything else is known exactly.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fantail_lab import Place, pace
from fantail_statelab import (
    FALSE,
    OK,
    Client,
    Refused,
    Server,
    StateLab,
    Unknown,
    Watcher,
    assert_no_holes,
    replayed,
    states,  # noqa: F401
)
from test_full_disk import SmallDisk

pytestmark = pytest.mark.slow

Json = Any

DURABILITIES = ("write", "fsync")
SMALLEST_JOURNAL = 64 * 1024


# --- clients with a model ----------------------------------------------------------------------------------------------


class Worker(threading.Thread):
    """Makes random operations on keys of its own, and counts in a key that all share; knows what must be there."""

    def __init__(self, states: StateLab, number: int) -> None:
        super().__init__(name=f"worker {number}", daemon=True)
        self.prefix = f"w{number}/"
        self.acknowledged = 0
        self.unknown = 0
        self.model: dict[str, Json] = {}
        self.error: BaseException | None = None
        self._client: Client = states.client()
        self._rng = random.Random(f"{states.lab.seed} {number}")
        self._ending = threading.Event()

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                self._step()
        except BaseException as error:  # told by stop(), on the thread of the test
            self.error = error

    def stop(self) -> None:
        self._ending.set()
        self.join()
        if self.error:
            raise AssertionError(f"{self.name} with {len(self.model)} keys: {self.error}") from self.error

    @property
    def counted(self) -> int:
        """How often it counted in the key of all."""
        return self.model.get(self.prefix + "count", 0)

    def _step(self) -> None:
        method, arguments, after, expected = self._operation()
        try:
            result = self._client.call(method, **arguments)
        except Unknown:
            self.unknown += 1
            there = self._client.items(self.prefix)
            assert there in (self.model, after), f"after {method} {arguments}: {there}, not {self.model} or {after}"
            self.model = there
            return
        except Refused as refused:
            assert expected == refused.kind, f"{method} {arguments} with {self.model}: {refused}"
            return
        assert expected is None or result.get("value") == expected, f"{method} {arguments}: {result}, not {expected}"
        self.acknowledged += 1
        self.model = after

    def _operation(self) -> tuple[str, dict[str, Json], dict[str, Json], Json]:
        """Its name and arguments, what the model is when it took effect, and the value or the error it gives."""
        rng, model = self._rng, self.model
        key, list_key, number_key = f"{self.prefix}k{rng.randrange(4)}", self.prefix + "list", self.prefix + "n"
        old: list[int] = model.get(list_key, [])
        match rng.randrange(8):
            case 0:
                value = {"a": rng.randrange(1000), "pad": "x" * rng.choice((0, 10, 3000))}
                return "set", {"key": key, "value": value}, model | {key: value}, None
            case 1:
                less = {name: value for name, value in model.items() if name != key}
                return "delete", {"key": key}, less, None if key in model else "key_absent"
            case 2:
                by = rng.randrange(-9, 10)
                value = model.get(number_key, 0) + by
                return "increment", {"key": number_key, "by": by}, model | {number_key: value}, value
            case 3 if len(old) < 30:
                item = old[-1] + 1 if old else 0
                return "append", {"key": list_key, "value": item}, model | {list_key: [*old, item]}, len(old) + 1
            case 4:
                value = rng.randrange(3)
                arguments = {"key": key, "old": model.get(key), "value": value}
                return "cas", arguments, model | {key: value}, None if key in model else "condition_failed"
            case 5:
                values = {f"{self.prefix}k{i}": rng.randrange(9) for i in range(3)}
                return "update", {"values": values}, model | values, None
            case _:
                # Two keys at once, one of them everybody's.
                mine = self.prefix + "count"
                steps = [["increment", "total", 1], ["increment", mine, 1]]
                if old:
                    steps.append(["set", list_key, old[-1:]])
                after = model | {mine: self.counted + 1} | ({list_key: old[-1:]} if old else {})
                return "txn", {"then": steps}, after, None


@contextlib.contextmanager
def working(states: StateLab, count: int) -> Iterator[list[Worker]]:
    workers = [Worker(states, number) for number in range(count)]
    for worker in workers:
        worker.start()
    try:
        yield workers
    finally:
        for worker in workers:
            worker.stop()


def wait_progress(states: StateLab, workers: list[Worker], operations: int) -> None:
    """Each of them makes so many more."""
    goals = {worker: worker.acknowledged + operations for worker in workers}

    def made() -> bool:
        failed = [worker for worker in workers if worker.error]
        for worker in failed:
            worker.stop()
        return all(worker.acknowledged >= goal for worker, goal in goals.items())

    states.lab.wait_until(made, f"everybody makes {operations} operations")


def assert_as_modelled(states: StateLab, workers: list[Worker]) -> None:
    expected: dict[str, Json] = {"total": sum(worker.counted for worker in workers)} if workers else {}
    for worker in workers:
        expected |= worker.model
    there = states.client().items()
    pairs = {key: (there.get(key), expected.get(key)) for key in there.keys() | expected.keys()}
    different = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    assert not different, f"there, and expected: {different}"


@pytest.mark.parametrize("durability", DURABILITIES)
def test_killed_at_random_moments_nothing_is_lost_and_nothing_there_twice(states: StateLab, durability: str) -> None:
    server = states.server("--durability", durability)
    watcher = states.watch("--from", "beginning", "--identical")
    with working(states, 6) as workers:
        for _ in range(5):
            wait_progress(states, workers, 20)
            pace(states.lab.rng.uniform(0, 0.3))
            server.restart()
        wait_progress(states, workers, 20)

    assert_as_modelled(states, workers)
    last = states.revision()
    # Each change that was acknowledged has a revision; of the others, each has one or none.
    assert sum(w.acknowledged for w in workers) <= last <= sum(w.acknowledged + w.unknown for w in workers)
    events = states.history()
    assert_no_holes([event["revision"] for event in events], 1, last)
    assert replayed(events) == states.client().items()
    assert states.wait_events(watcher, last) == events
    assert server.terminate() == OK
    server.start()
    assert_as_modelled(states, workers)


@pytest.mark.parametrize("durability", DURABILITIES)
def test_killed_at_random_moments_no_increment_is_lost_or_counted_twice(states: StateLab, durability: str) -> None:
    """All clients count in one key: each number is told to one of them, and the last is at least their count."""
    server = states.server("--durability", durability)
    told: list[int] = []
    unknown: list[int] = []
    ending = threading.Event()

    def count() -> None:
        client = states.client()
        while not ending.is_set():
            try:
                told.append(client.call("increment", key="n")["value"])
            except Unknown:
                unknown.append(1)

    threads = [threading.Thread(target=count, daemon=True) for _ in range(5)]
    for thread in threads:
        thread.start()
    for _ in range(6):
        had = len(told)
        states.lab.wait_until(lambda: len(told) > had + 100, "the clients count")
        pace(states.lab.rng.uniform(0, 0.2))
        server.restart()
    ending.set()
    for thread in threads:
        thread.join()

    assert len(told) == len(set(told)), "no number was told twice"
    assert len(told) <= states.done("get", "n") <= len(told) + len(unknown)
    assert states.done("get", "n") == states.revision()
    assert set(range(1, states.revision() + 1)) >= set(told)


def test_z14_a_hundred_processes_count_exactly(states: StateLab) -> None:
    """100 × (5 × -100 + 5 × 1) = -49500."""
    states.server()
    script = 'for i in 1 2 3 4 5; do "$STATE" decr n 100 --timeout 60; "$STATE" incr n --timeout 60; done'
    processes = [states.shell(script) for _ in range(100)]
    for process in processes:
        assert process.wait_exit(80) == OK, process.report()
    assert states.done("get", "n") == 100 * (5 * -100 + 5 * 1) == -49500
    assert states.revision() == 1000


def test_z14_a_hundred_clients_count_exactly_while_the_server_is_killed(states: StateLab) -> None:
    """Each asks what became of an operation whose answer did not come, and repeats it if it must: -49500 again."""
    server = states.server()
    errors: list[BaseException] = []

    def count(number: int) -> None:
        client = states.client()
        mine = f"steps/{number}"
        try:
            for step in range(10):
                by = -100 if step % 2 == 0 else 1
                while client.items(mine + ".").get(mine + ".", 0) == step:
                    try:
                        client.call("txn", then=[["increment", "n", by], ["increment", mine + ".", 1]])
                    except Unknown:
                        continue
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=count, args=(number,), daemon=True) for number in range(100)]
    for thread in threads:
        thread.start()
    watching = states.client()
    for goal in (100, 400, 700):
        states.lab.wait_until(lambda: sum(watching.items("steps/").values()) >= goal, f"{goal} steps are made")
        server.restart()
    for thread in threads:
        thread.join()

    assert not errors
    assert states.done("get", "n") == 100 * (5 * -100 + 5 * 1) == -49500
    assert states.revision() == 1000


# --- watchers ----------------------------------------------------------------------------------------------------------


def write_followed(states: StateLab, watcher: Watcher, values: range, at: dict[int, Callable[[], None]]) -> None:
    """Sets one key to each of the values, and never goes further ahead of the watcher than a journal is long."""
    client = states.client()
    for value in values:
        if value in at:
            at[value]()
        while True:
            try:
                client.call("set", key="k", value=[value, "x" * 300])
                break
            except Unknown:
                there = client.items("k").get("k", [None])[0]
                if there == value:
                    break
        if value % 50 == 0:
            states.wait_events(watcher, value - 25)


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_watcher_sees_every_revision_through_kills_and_compactions(states: StateLab, durability: str) -> None:
    last = 1500
    server = states.server("--compact-at", SMALLEST_JOURNAL, "--durability", durability)
    watcher = states.watch("k", "--from", "beginning")
    compactions: list[int] = []

    def kill() -> None:
        compactions.append(server.compactions())
        server.restart()

    first, second = states.lab.rng.randrange(300, 700), states.lab.rng.randrange(800, 1200)
    write_followed(states, watcher, range(1, last + 1), {first: kill, second: kill})

    states.wait_events(watcher, last)
    assert_no_holes(watcher.revisions(), 1, last)
    assert [event["after"][0] for event in watcher.events()] == list(range(1, last + 1))
    compactions.append(server.compactions())
    assert 0 < compactions[0] < compactions[1] < compactions[2], "compactions before, between and after"


def test_a_compacted_revision_is_refused_with_the_oldest_one_left(states: StateLab) -> None:
    """And from that one on all are there, also after a restart."""
    last = 800
    server = states.server("--compact-at", SMALLEST_JOURNAL)
    watcher = states.watch("k", "--from", "beginning")
    write_followed(states, watcher, range(1, last + 1), {})
    states.lab.wait_until(lambda: server.compactions() >= 3, "the journal was compacted")

    for _ in range(2):
        refused = states.run("watch", "--from", "1")

        assert (refused.code, refused.out) == (FALSE, "")
        told = re.search(r"compacted; the oldest one left is (\d+)", refused.err)
        assert told, refused.err
        oldest = int(told[1])
        assert 1 < oldest <= last
        assert states.run("watch", "--from", oldest - 1).code == FALSE
        rest = states.run("watch", "--from", oldest, "--count", last - oldest + 1)
        assert rest.code == OK, rest.err
        assert [json.loads(line) for line in rest.out.splitlines()] == watcher.events()[oldest - 1 :]
        server.restart()


def lose_power(server: Server, changes: int) -> None:
    """Kills the server, and takes from its journal what the system had not written: by hand, with another boot id."""
    server.kill9()
    index = server.state_dir / "journal"
    told = json.loads(index.read_text())
    index.write_text(json.dumps(told | {"boot": "another"}))
    journal = server.state_dir / f"journal-{told['sequence']}.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: len(lines) - changes]))
    server.start()


def test_a_watcher_that_saw_what_a_power_loss_took_says_so(states: StateLab) -> None:
    """As many changes have come again by then: revisions alone would not show it."""
    server = states.server()
    client = states.client()
    for i in range(1, 11):
        client.call("set", key="k", value=i)
    saw_all = states.watch("k", "--from", "beginning", may_end=True)
    states.wait_events(saw_all, 10)
    lose_power(server, 3)
    states.lab.wait_until(server.is_up, "it is up again")
    client = states.client()
    for i in range(8, 20):
        client.call("set", key="k", value=-i)

    assert saw_all.wait_exit() == FALSE
    assert "lost the changes behind revision 7" in saw_all.stderr()
    assert [e["after"] for e in saw_all.events()] == list(range(1, 11)), "nothing of the other history"
    assert [e["after"] for e in states.history()][6:9] == [7, -8, -9]


def test_a_watcher_that_saw_less_than_a_power_loss_left_goes_on(states: StateLab) -> None:
    server = states.server()
    client = states.client()
    for i in range(1, 8):
        client.call("set", key="k", value=i)
    watcher = states.watch("k", "--from", "beginning")
    states.wait_events(watcher, 7)
    lose_power(server, 0)
    states.lab.wait_until(server.is_up, "it is up again")
    states.set("k", 8)
    assert [e["after"] for e in states.wait_events(watcher, 8)] == list(range(1, 9))


def test_from_the_beginning_is_from_the_oldest_one_left(states: StateLab) -> None:
    last = 800
    server = states.server("--compact-at", SMALLEST_JOURNAL)
    watcher = states.watch("k", "--from", "beginning")
    write_followed(states, watcher, range(1, last + 1), {})
    states.lab.wait_until(lambda: server.compactions() >= 3, "the journal was compacted")

    told = re.search(r"the oldest one left is (\d+)", states.run("watch", "--from", "1").err)
    first = states.run("watch", "--from", "beginning", "--count", 1)

    assert told and first.code == OK
    assert json.loads(first.out)["revision"] == int(told[1]) == states.done("info")["oldest"]


def test_a_condition_is_judged_by_the_whole_state_also_behind_a_compaction(states: StateLab) -> None:
    """The other key of the test was set long before the oldest change that is left."""
    last = 800
    server = states.server("--compact-at", SMALLEST_JOURNAL)
    states.set("old", "here", "--namespace", "ns")
    watcher = states.watch("k", "--from", "2")
    write_followed(states, watcher, range(1, last + 1), {})
    states.lab.wait_until(lambda: server.compactions() >= 3, "the journal was compacted")
    start = states.revision() + 1
    waiting = states.watch("--namespace", "ns", "--if", '/old == "here" && /new > 1', "--from", start, "--count", 2)
    for value in (1, 2, 3):
        states.set("new", value, "--namespace", "ns")
    assert waiting.wait_exit() == OK
    assert [event["after"] for event in waiting.events()] == [2, 3]


def test_killed_while_it_compacts_all_the_time(states: StateLab) -> None:
    """With 20 MB of state each compaction takes many turns; kills hit some of them."""
    server = states.server("--compact-at", SMALLEST_JOURNAL)
    client = states.client()
    for i in range(200):
        client.call("set", key=f"large/{i}", value="x" * 100_000)
    with working(states, 4) as workers:
        for _ in range(6):
            wait_progress(states, workers, 10)
            pace(states.lab.rng.uniform(0, 0.2))
            server.restart()
        wait_progress(states, workers, 10)
    assert len(client.items("large/")) == 200
    client.call("txn", then=[["delete", f"large/{i}"] for i in range(200)])
    assert_as_modelled(states, workers)
    server.restart()
    assert_as_modelled(states, workers)
    assert "damaged" not in server.stderr()
    journals = sorted(path.name for path in server.state_dir.glob("journal-*"))
    assert len(journals) <= 3, f"old journals are removed: {journals}"


def test_a_slow_watcher_that_was_left_behind_says_so(states: StateLab) -> None:
    """It stood still while the journal was compacted twice: it ends with the oldest revision left, without a hole."""
    server = states.server("--compact-at", SMALLEST_JOURNAL)
    watcher = states.watch("k", "--from", "beginning", may_end=True)
    client = states.client()
    client.call("set", key="k", value=0)
    states.wait_events(watcher, 1)
    watcher.freeze()
    for value in range(1, 20_000):
        client.call("set", key="k", value=[value, "x" * 300])
        if value % 1000 == 0 and server.compactions() >= 100:
            break
    watcher.thaw()

    def ended_or_all() -> bool:
        return not watcher.alive or watcher.count() == value + 1

    states.lab.wait_until(
        ended_or_all,
        "it ends, or has everything",
        deadline=20,
        explain=lambda: f"it has {watcher.count()} of {value + 1}\n{watcher.report()}",
    )

    assert_no_holes(watcher.revisions(), 1, watcher.count())
    if not watcher.alive:
        assert watcher.wait_exit() == FALSE
        assert re.search(r"compacted; the oldest one left is \d+", watcher.stderr())


# --- the end of a journal ----------------------------------------------------------------------------------------------


def last_journal(server: Server) -> Any:
    return max(server.state_dir.glob("journal-*.jsonl"), key=lambda path: int(path.stem.split("-")[1]))


@pytest.mark.parametrize("missing", (1, 2, 40))
def test_a_record_that_was_cut_off_did_not_happen(states: StateLab, missing: int) -> None:
    """As after a loss of power: the end of the last line is not there. What comes then has new revisions."""
    server = states.server()
    for value in (1, 2, 3):
        states.set("k", value)
    server.kill9()
    journal = last_journal(server)
    with journal.open("r+b") as file:
        file.truncate(journal.stat().st_size - missing)
    server.start()
    assert states.items() == {"k": 2}
    assert states.revision() == 2
    states.set("k", 4)
    server.restart()
    assert states.items() == {"k": 4}
    assert states.done("get", "k", "--json") == {"value": 4, "revision": 3}


def test_a_journal_damaged_in_the_middle_is_set_aside_and_told(states: StateLab) -> None:
    server = states.server()
    for value in range(10):
        states.set(f"k{value}", value)
    server.kill9()
    journal = last_journal(server)
    lines = journal.read_bytes().split(b"\n")
    lines[-4] = lines[-4].replace(b'"after":7', b'"after":8')
    journal.write_bytes(b"\n".join(lines))
    server.start()
    states.lab.wait_until(server.is_up, "the server is up")
    assert "damaged" in server.stderr() and journal.name in server.stderr()
    assert list(server.state_dir.glob(f"{journal.name}.damaged*"))
    assert states.items() == {f"k{value}": value for value in range(7)}
    states.set("new", 1)
    server.restart()
    assert states.items() == {f"k{value}": value for value in range(7)} | {"new": 1}


def test_a_compaction_that_fails_at_its_last_step_harms_nobody(states: StateLab) -> None:
    """The index of the journals cannot be written for a while, because a folder is in its way."""
    server = states.server("--compact-at", SMALLEST_JOURNAL)
    watcher = states.watch("k", "--from", "beginning")
    client = states.client()
    obstacle = server.state_dir / "journal.new"

    def block() -> None:
        states.lab.wait_until(lambda: server.compactions() >= 2, "the journal was compacted")
        obstacle.mkdir()

    write_followed(states, watcher, range(1, 601), {301: block})
    states.lab.wait_until(lambda: "cannot compact the journal" in server.stderr(), "it says that it cannot compact")
    late = states.run("watch", "--from", 250, "--count", 2)
    assert late.code in (OK, FALSE), late
    obstacle.rmdir()
    assert client.call("get", key="k")["value"][0] == 600
    server.restart()
    assert client.call("get", key="k")["value"][0] == 600
    write_followed(states, watcher, range(601, 1001), {})
    assert [event["after"][0] for event in states.wait_events(watcher, 1000)] == list(range(1, 1001))


def test_a_compaction_that_fails_when_nobody_has_watched_harms_nobody(states: StateLab) -> None:
    """The journals that were never broadcast are still there for the first watcher that comes."""
    server = states.server("--compact-at", SMALLEST_JOURNAL)
    client = states.client()
    last = 0

    def write_until(condition: Callable[[], bool]) -> None:
        nonlocal last
        while not condition():
            last += 1
            client.call("set", key="k", value=[last, "x" * 30_000])
            assert last < 1000 and server.alive

    write_until(lambda: server.compactions() == 1)
    (server.state_dir / "journal.new").mkdir()
    write_until(lambda: "cannot compact the journal" in server.stderr())

    watcher = states.watch("--from", last + 1)

    for value in range(last + 1, last + 11):
        client.call("set", key="k", value=value)
    events = states.wait_events(watcher, 10)
    assert_no_holes([event["revision"] for event in events], last + 1, last + 10)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: it makes one fdatasync fail")
def test_a_change_that_could_not_be_synced_did_not_happen(states: StateLab) -> None:
    """It is refused; those before and after it that were acknowledged are there after a kill."""
    inject = ("-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=3")
    fail_third = ("strace", "-f", "-qq", "-o", "/dev/null", *inject)
    traced = states.server("--durability", "fsync", place=Place("127.0.0.1", "127.0.0.1", fail_third))
    client = states.client()
    acknowledged = {}
    for i in range(5):
        with contextlib.suppress(Refused):
            client.call("set", key=f"k{i}", value=i)
            acknowledged[f"k{i}"] = i
    assert len(acknowledged) == 4
    assert client.items() == acknowledged
    traced.kill9_children()
    traced.wait_exit()

    after = states.server("--durability", "fsync", state_dir=traced.state_dir)

    assert states.items(server=after) == acknowledged
    assert "damaged" not in after.stderr()


def test_without_durability_an_orderly_end_keeps_everything(states: StateLab) -> None:
    """And a kill what had been told to watchers."""
    server = states.server("--durability", "none")
    watcher = states.watch("--from", "beginning")
    client = states.client()
    for value in range(1, 2001):
        client.call("set", key=f"k{value % 7}", value=value)
    states.wait_events(watcher, 2000)
    server.restart()
    assert client.items() == replayed(watcher.events())
    for value in range(1, 501):
        client.call("increment", key="n")
    assert server.terminate() == OK
    server.start()
    assert client.items()["n"] == 500
    assert_no_holes([event["revision"] for event in states.wait_events(watcher, 2500)], 1, 2500)


# --- a full disk -------------------------------------------------------------------------------------------------------


def refusal(states: StateLab, key: str, size: int) -> str:
    """Why setting a key is refused; nothing when it is not."""
    done = states.run("load", stdin=json.dumps({key: "x" * size}))
    assert done.code in (OK, FALSE)
    return done.err


def test_a_full_disk_refuses_changes_and_nothing_else(states: StateLab) -> None:
    server = states.server(start=False)
    disk = SmallDisk(states.lab, server.state_dir)
    server.start()
    watcher = states.watch("--from", "beginning")
    set_keys = 0
    while not (why := refusal(states, f"k{set_keys}", 100_000)):
        set_keys += 1
        assert set_keys < 1000

    assert "no space" in why.lower() and "nothing was changed" in why
    assert set_keys > 10
    before = states.items()
    assert sorted(before) == sorted(f"k{i}" for i in range(set_keys))
    assert states.revision() == set_keys
    for _ in range(3):
        assert refusal(states, "again", 200_000)
        assert refusal(states, "k0", 200_000)
    assert states.items() == before
    assert states.revision() == set_keys
    assert states.done("get", "k0") == "x" * 100_000
    logged = [line for line in server.stderr().splitlines() if "cannot write the journal" in line]
    assert 0 < len(logged) <= 10, "told, and not with each change"

    disk.make_space()

    states.lab.wait_until(lambda: not refusal(states, "after", 200_000), "sets are taken again")
    states.set("small", 1)
    after = states.items()
    assert after == before | {"after": "x" * 200_000, "small": 1}
    server.restart()
    assert states.items() == after
    assert states.revision() == set_keys + 2
    states.wait_events(watcher, set_keys + 2)
    assert_no_holes(watcher.revisions(), 1, set_keys + 2)
    assert replayed(watcher.events()) == after


def test_a_full_disk_under_many_clients_and_kills(states: StateLab) -> None:
    """Who was refused is not there, who was acknowledged is, whichever changes were written together."""
    server = states.server(start=False)
    disk = SmallDisk(states.lab, server.state_dir)
    server.start()
    acknowledged: dict[str, int] = {}
    unknown: set[str] = set()
    full = threading.Barrier(5)
    ending = threading.Event()
    errors: list[BaseException] = []

    def fill(number: int) -> None:
        client = states.client()
        try:
            refused = 0
            for i in range(100_000):
                key = f"{number}/{i}"
                try:
                    client.call("set", key=key, value="x" * 20_000)
                    acknowledged[key] = 1
                except Unknown:
                    unknown.add(key)
                except Refused as why:
                    assert why.kind == "no_space", why
                    refused += 1
                    if refused == 20:
                        full.wait()
                if ending.is_set():
                    return
        except BaseException as error:
            errors.append(error)
            full.abort()

    threads = [threading.Thread(target=fill, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    full.wait(60)
    server.restart()
    disk.make_space()
    had = len(acknowledged)
    states.lab.wait_until(lambda: errors or len(acknowledged) > had + 50, "sets are taken again")
    server.restart()
    ending.set()
    for thread in threads:
        thread.join()

    assert not errors, errors
    there = states.client().items().keys()
    assert acknowledged.keys() <= there <= acknowledged.keys() | unknown
    assert states.revision() == len(there)
