"""What one can look at: the state of producers and consumers that run or not, what is held and for whom, and losses;
and what one can change: forget, rewind."""

from __future__ import annotations

import json
import os
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fantail_lab import LOOPBACK, Agent, Consumer, Finished, Lab
from fantail_sources import Source

USAGE_EXIT = 2
FAILURE_EXIT = 1
LOSS_EXIT = 3

Row = dict[str, Any]


# --- asking ------------------------------------------------------------------------------------------------------------


def program_of(agent: Agent) -> str:
    return "fantail-consumer" if isinstance(agent, Consumer) else "fantail-producer"


def command(lab: Lab, agent: Agent, *words: object) -> Finished:
    return lab.run(program_of(agent), words[0], "--state-dir", agent.folder / "state", *words[1:])


def objects(lab: Lab, agent: Agent, *words: object) -> list[Row]:
    done = command(lab, agent, *words, "--json")
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def status(lab: Lab, agent: Agent) -> tuple[Row, list[Row]]:
    summary, *streams = objects(lab, agent, "status")
    assert summary["type"] == "summary"
    return summary, streams


def stream_of(lab: Lab, agent: Agent, source: Source) -> Row:
    [stream] = [s for s in status(lab, agent)[1] if s["path"] == str(source.path)]
    return stream


def wait_status(lab: Lab, agent: Agent, holds: Any, what: str) -> tuple[Row, list[Row]]:
    def look() -> Any:
        if command(lab, agent, "status").code != 0:
            return None  # it has only begun to start
        seen = status(lab, agent)
        return seen if holds(*seen) else None

    return lab.wait_until(look, what, explain=lambda: str(status(lab, agent)))


def one_away(lab: Lab, *producer_flags: str) -> tuple[Agent, Consumer, Consumer, Source]:
    """Two consumers have the beginning of a file, one of them goes away, then the file grows."""
    source = lab.source()
    link = lab.link("tcp", consumers=[LOOPBACK] * 2)
    present = lab.consumer(link.consumers[0], name="one", mirror=True)
    away = lab.consumer(link.consumers[1], name="two", mirror=True)
    producer = lab.producer(link.producers[0], *producer_flags)
    source.append_lines(100)
    lab.wait_mirrored(present, away)
    assert away.terminate() == 0
    return producer, present, away, source


# --- producers ---------------------------------------------------------------------------------------------------------


def test_a_producer_shows_the_same_streams_whether_it_runs_or_not(lab: Lab) -> None:
    source = lab.source()
    producer, consumer = lab.pair()
    source.append_lines(1000)
    size = source.current.size
    lab.wait_mirrored(consumer)

    summary, [running] = wait_status(
        lab, producer, lambda _, streams: streams and streams[0]["committed"] == size, "the commit is in"
    )
    assert summary["running"] and summary["pid"] == producer.pid
    assert [(c["consumer"], c["connected"]) for c in summary["consumers"]] == [("main", True)]
    assert (running["size"], running["cursor"], running["behind"], running["waiting"]) == (size, size, 0, [])
    assert producer.terminate() == 0

    summary, [stopped] = status(lab, producer)
    assert not summary["running"]
    assert [c["consumer"] for c in summary["consumers"]] == ["main"]
    for member in ("stream", "topic", "path", "current_path", "state", "size", "cursor", "committed", "behind"):
        assert stopped[member] == running[member], member


def test_a_deleted_file_is_shown_with_who_it_is_held_for_and_forgetting_that_one_frees_it(lab: Lab) -> None:
    producer, present, _, source = one_away(lab)
    committed = source.current.size
    source.append_lines(1000)
    end = source.current.size
    lab.wait_mirrored(present)
    source.delete()

    summary, [held] = wait_status(
        lab,
        producer,
        lambda _, streams: streams
        and streams[0]["state"] == "held"
        and [who["connected"] for who in streams[0]["waiting"]] == [False],
        "the file is held for the one who is away",
    )
    assert held["waiting"] == [{"consumer": "two", "from": committed, "to": end, "connected": False}]
    assert (summary["held_files"], summary["held_bytes"]) == (1, end - committed)
    table = command(lab, producer, "status").out
    assert "two(away)" in table and held["stream"][:8] in table
    metrics = command(lab, producer, "status", "--metrics").out
    assert f'fantail_producer_consumer_held_bytes{{consumer="two"}} {end - committed}\n' in metrics

    refused = command(lab, producer, "forget", "--consumer", "one")
    assert refused.code == USAGE_EXIT and "is connected" in refused.err
    assert command(lab, producer, "forget", "--consumer", "two").code == 0

    # The test itself may still write to it.
    summary, [freed] = wait_status(
        lab, producer, lambda summary, _: not summary["held_files"], "the file is not held any more"
    )
    assert (freed["state"], freed["waiting"]) == ("deleted", [])
    assert [c["consumer"] for c in summary["consumers"]] == ["one"]
    assert f"from={committed} to={end}" in producer.stderr(), "the range is on record"
    assert command(lab, producer, "forget", "--consumer", "two").code == FAILURE_EXIT


def test_a_consumer_is_forgotten_by_itself_and_by_a_flag_at_the_start(lab: Lab) -> None:
    producer, present, _, _ = one_away(lab, "--forget-after", "0.5")
    wait_status(
        lab, producer, lambda summary, _: [c["consumer"] for c in summary["consumers"]] == ["one"], "two is forgotten"
    )
    assert present.alive
    assert producer.terminate() == 0
    assert present.terminate() == 0

    producer.start("--forget", "one", "--forget-after", "0")
    wait_status(lab, producer, lambda summary, _: summary["running"] and not summary["consumers"], "one is forgotten")


@pytest.mark.parametrize("running", (True, False))
def test_a_forgotten_file_that_is_there_comes_again_as_another_stream(lab: Lab, running: bool) -> None:
    source = lab.source()
    producer, consumer = lab.pair(mirror=False, merged=True)
    source.append_lines(10)
    lab.wait_merged(consumer)
    before = stream_of(lab, producer, source)["stream"]
    if not running:
        assert producer.terminate() == 0

    assert command(lab, producer, "forget", source.path).code == 0
    if not running:
        assert not status(lab, producer)[1]
        producer.start()

    _, [after] = wait_status(
        lab, producer, lambda _, streams: [s["stream"] for s in streams] not in ([], [before]), "a new stream"
    )
    assert after["path"] == str(source.path)
    lab.wait_until(lambda: consumer.merged.read_bytes() == source.text() * 2, "it is sent once more")


@pytest.mark.parametrize("running", (True, False))
def test_a_rewound_producer_broadcasts_again_and_goes_on_where_it_was(lab: Lab, running: bool) -> None:
    source = lab.source()
    producer, consumer = lab.pair()
    source.append_lines(1000)
    size = source.current.size
    lab.wait_mirrored(consumer)
    wait_status(lab, producer, lambda _, s: s and s[0]["cursor"] == size, "all is sent")
    if not running:
        assert producer.terminate() == 0

    assert command(lab, producer, "rewind", source.path, "--to", "100").code == 0
    if not running:
        assert stream_of(lab, producer, source)["cursor"] == 100
        producer.start()

    sent = size if running else 0
    wait_status(
        lab,
        producer,
        lambda summary, _: summary["running"] and summary["counters"]["sent_bytes"] == sent + size - 100,
        "what is behind the offset is broadcast again",
    )
    source.append_lines(100)
    lab.wait_mirrored(consumer)
    wait_status(lab, producer, lambda _, s: len(s) == 1 and s[0]["committed"] == source.current.size, "the same stream")
    too_far = command(lab, producer, "rewind", source.path, "--to", "999999999")
    assert too_far.code == USAGE_EXIT and "give an offset between" in too_far.err


def test_when_descriptors_run_out_the_oldest_deleted_file_is_a_loss_with_its_range(lab: Lab) -> None:
    few_descriptors = replace(LOOPBACK, prefix=("/usr/bin/prlimit", "--nofile=64:64"))
    link = lab.link("tcp", producers=[few_descriptors], consumers=[LOOPBACK] * 2)
    present = lab.consumer(link.consumers[0], name="one", mirror=True)
    away = lab.consumer(link.consumers[1], name="two", mirror=True)
    sources = [lab.source(f"{n:03}.log") for n in range(80)]
    producer = lab.producer(link.producers[0])
    for source in sources:
        source.append_lines(1)
    lab.wait_mirrored(present, away)
    summary, _ = status(lab, producer)
    assert summary["open_files"] <= summary["open_files_limit"] < 64, "live files take turns"
    assert not summary["counters"]["lost_bytes"] and not summary["counters"]["read_errors"]

    assert away.terminate() == 0
    limit = summary["open_files_limit"]
    lacking = {}
    for source in sources[: limit + 5]:
        committed = source.current.size
        source.append_lines(1)
        end = source.current.size
        lacking[str(source.path)] = (committed, end)
        lab.wait_until(lambda: present.mirrored(source).stat().st_size == end, "it is read")
        source.delete()
        lab.wait_until(lambda: f"path={source.path} bytes=" in producer.stderr(), "its end was seen")

    gone = [s for s in status(lab, producer)[1] if s["state"] == "gone"]
    assert 5 <= len(gone) < limit, "some, and not all"
    expected = {str(source.path): lacking[str(source.path)] for source in sources[: len(gone)]}
    assert {s["path"]: (w["from"], w["to"]) for s in gone for w in s["waiting"]} == expected, "the oldest"

    away.start()
    lab.wait_until(lambda: len(objects(lab, away, "losses")) == len(gone), "each is recorded", explain=away.report)
    recorded = {loss["path"]: (loss["from"], loss["to"]) for loss in objects(lab, away, "losses")}
    assert recorded == expected
    assert away.terminate() == LOSS_EXIT


def test_empty_files_that_wait_take_no_descriptor_that_others_need(lab: Lab) -> None:
    """An empty file may be a copy that is about to be written: it waits, and is kept open if there is room."""
    few_descriptors = replace(LOOPBACK, prefix=("/usr/bin/prlimit", "--nofile=64:64"))
    link = lab.link("tcp", producers=[few_descriptors])
    consumer = lab.consumer(link.consumers[0], mirror=True)
    producer = lab.producer(link.producers[0])
    lab.wait_until(lambda: "producer started" in producer.stderr(), "it watches")
    sources = [lab.source(f"{n:03}.log") for n in range(200)]
    for source in sources:
        source.append(b"")
    open_at_most = 0

    def streams() -> int:
        nonlocal open_at_most
        paths = [os.readlink(fd) for fd in Path(f"/proc/{producer.pid}/fd").iterdir() if fd.is_symlink()]
        open_at_most = max(open_at_most, len([p for p in paths if p.startswith(str(sources[0].path.parent))]))
        return producer.stderr().count("file found")

    lab.wait_until(lambda: streams() == len(sources), "each is a stream", explain=producer.report)
    limit = status(lab, producer)[0]["open_files_limit"]
    assert 0 < open_at_most <= limit
    for source in sources:
        source.append_lines(5)
    lab.wait_mirrored(consumer, deadline=90)
    assert status(lab, producer)[0]["open_files"] <= limit, "live files take turns"
    assert producer.terminate() == 0


# --- consumers ---------------------------------------------------------------------------------------------------------


def test_a_consumer_shows_the_same_streams_whether_it_runs_or_not(lab: Lab) -> None:
    source = lab.source()
    producer, consumer = lab.pair(merged=True)
    source.append_lines(1000)
    size = source.current.size
    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)

    summary, [running] = wait_status(
        lab, consumer, lambda _, streams: streams and streams[0]["committed"] == size, "it is committed"
    )
    assert summary["running"] and summary["pid"] == consumer.pid and summary["losses"] == 0
    assert (running["cursor"], running["head"], running["behind"], running["connected"]) == (size, size, 0, True)
    assert len(running["outputs"]) == 2
    assert consumer.terminate() == 0

    summary, [stopped] = status(lab, consumer)
    assert not summary["running"]
    for member in ("stream", "node", "node_name", "topic", "path", "cursor", "committed", "sealed"):
        assert stopped[member] == running[member], member
    assert sorted(o["output"] for o in stopped["outputs"]) == sorted(o["output"] for o in running["outputs"])
    assert "fantail_consumer_up 0\n" in command(lab, consumer, "status", "--metrics").out
    assert producer.alive


@pytest.mark.parametrize("running", (True, False))
def test_a_rewound_consumer_gets_exactly_what_is_behind_the_offset_again(lab: Lab, running: bool) -> None:
    source = lab.source()
    other = lab.source("other.log")
    _, consumer = lab.pair(mirror=True, merged=True)
    source.append_lines(500)
    lab.wait_merged(consumer)
    lines = source.text()
    other.append_lines(100)
    lab.wait_merged(consumer)
    merged = consumer.merged.read_bytes()
    to = lines.index(b"\n", len(lines) // 3) + 1
    wait_status(lab, consumer, lambda _, s: len(s) == 2 and all(x["committed"] == x["head"] for x in s), "all is committed")
    if not running:
        assert consumer.terminate() == 0

    done = command(lab, consumer, "rewind", source.path, "--to", to)
    assert done.code == 0, done.err
    if not running:
        assert stream_of(lab, consumer, source)["cursor"] == to
        consumer.start()

    again = merged + lines[to:]
    lab.wait_until(lambda: consumer.merged.read_bytes() == again, "the range comes again", explain=consumer.report)
    lab.wait_mirrored(consumer)
    more = source.append_lines(10)
    lab.wait_until(lambda: consumer.merged.read_bytes() == again + more, "and it goes on behind it")
    consumer.kill9()
    consumer.start()
    last = other.append_lines(1)
    # What was not committed before the kill comes again, perhaps in another order of the two files.
    lines_of_all = sorted((again + more + last).splitlines())
    lab.wait_until(lambda: sorted(consumer.merged_lines()) == lines_of_all, "exactly once, also over a crash")


def test_all_streams_of_a_consumer_are_rewound(lab: Lab) -> None:
    sources = [lab.source(f"{n}.log") for n in range(3)]
    _, consumer = lab.pair(merged=True, mirror=False)
    for source in sources:
        source.append_lines(10)
    lab.wait_merged(consumer)
    size = consumer.merged.stat().st_size

    assert command(lab, consumer, "rewind", "--all").code == 0

    lab.wait_until(lambda: consumer.merged.stat().st_size == 2 * size, "everything comes once more")
    for source in sources:
        assert all(consumer.merged_lines().count(line) == 2 for line in source.text().splitlines())


def test_listed_losses_are_the_loss_objects_of_the_output(lab: Lab) -> None:
    source = lab.source()
    link = lab.link("tcp", consumers=[LOOPBACK] * 2)
    present = lab.consumer(link.consumers[0], name="one", mirror=True)
    away = lab.consumer(link.consumers[1], "--format", "jsonl", name="two", merged=True)
    producer = lab.producer(link.producers[0], "--hold-bytes", "1")
    source.append_lines(100)
    lab.wait_until(lambda: len(away.merged_lines()) == 100, "both have the beginning")
    assert away.terminate() == 0
    source.append_lines(1000)
    lab.wait_mirrored(present)
    source.delete()
    lab.wait_until(lambda: "giving up" in producer.stderr(), "the producer gives it up")
    away.start()

    def told() -> list[Row]:
        return [row for row in map(json.loads, away.merged_lines()) if "loss" in row]

    [row] = lab.wait_until(told, "the loss is in the output", explain=away.report)
    [loss] = objects(lab, away, "losses")
    assert {"from": loss["from"], "to": loss["to"], "reason": loss["reason"]} == row["loss"]
    for member in ("node", "topic", "path", "stream"):
        assert loss[member] == row[member]
    summary, [stream] = status(lab, away)
    assert (summary["losses"], stream["losses"]) == (1, 1)
    assert stream["lost_bytes"] == loss["to"] - loss["from"]
    assert away.terminate() == LOSS_EXIT
    assert objects(lab, away, "losses") == [loss]
    assert loss["stream"][:8] in command(lab, away, "losses").out
    assert objects(lab, away, "losses", "/no/such/*") == []


# --- both --------------------------------------------------------------------------------------------------------------


def test_the_state_of_an_older_version_opens(lab: Lab) -> None:
    source = lab.source()
    producer, consumer = lab.pair()
    source.append_lines(10)
    lab.wait_mirrored(consumer)
    assert producer.terminate() == 0
    with sqlite3.connect(producer.folder / "state" / "registry.db") as registry:
        registry.execute("DROP TABLE absences")

    assert len(status(lab, producer)[1]) == 1
    producer.start()
    source.append_lines(10)
    lab.wait_mirrored(consumer)


def test_two_programs_on_one_state_directory_are_refused_and_commands_still_work(lab: Lab) -> None:
    source = lab.source()
    producer, consumer = lab.pair()
    source.append_lines(10)
    lab.wait_mirrored(consumer)
    for agent in (producer, consumer):
        second = lab.run(program_of(agent), *agent.flags)
        assert second.code == USAGE_EXIT and "in use by process" in second.err
        assert status(lab, agent)[0]["pid"] == agent.pid


def test_a_program_that_does_not_answer_is_not_changed_behind_its_back(lab: Lab) -> None:
    source = lab.source()
    producer, consumer = lab.pair()
    source.append_lines(10)
    lab.wait_mirrored(consumer)
    for agent in (producer, consumer):
        (agent.folder / "state" / "admin").unlink()
        done = command(lab, agent, "rewind", source.path)
        assert done.code == USAGE_EXIT and f"in use by process {agent.pid}; end it" in done.err


def test_names_that_mean_no_stream_or_several_are_refused_with_those_there_are(lab: Lab) -> None:
    sources = [lab.source(name) for name in ("one.log", "two.log")]
    producer, consumer = lab.pair()
    for source in sources:
        source.append_lines(1)
    lab.wait_mirrored(consumer)
    wait_status(lab, consumer, lambda _, streams: len(streams) == 2, "both are known")
    for agent in (producer, consumer):
        unknown = command(lab, agent, "rewind", "one.log")
        assert unknown.code == FAILURE_EXIT and str(sources[0].path) in unknown.err and not unknown.out
        assert command(lab, agent, "rewind", "0000000").code == FAILURE_EXIT, "seven digits are no id"
        assert command(lab, agent, "rewind").code == USAGE_EXIT
        assert command(lab, agent, "status", "--json", "--metrics").code == USAGE_EXIT
        nowhere = lab.run(program_of(agent), "status", "--state-dir", lab.root / "nowhere")
        assert nowhere.code == FAILURE_EXIT and "--state-dir" in nowhere.err and not nowhere.out
        assert not (lab.root / "nowhere").exists(), "looking makes nothing"
        stream = stream_of(lab, agent, sources[0])["stream"]
        assert command(lab, agent, "rewind", stream[:8]).code == 0


def test_many_streams_are_shown_in_pages_and_tables_are_cut(lab: Lab) -> None:
    folder = lab.files_of("alpha")
    for n in range(1203):
        (folder / f"{n:04}.log").write_text(f"line of {n}\n")
    producer, consumer = lab.pair()
    wait_status(lab, consumer, lambda summary, streams: len(streams) == 1203, "all are known")
    for agent in (producer, consumer):
        summary, streams = status(lab, agent)
        assert summary["streams"] == len({s["stream"] for s in streams}) == 1203
        table = command(lab, agent, "status").out
        assert "... and 1103 more" in table
        assert len(objects(lab, agent, "status", "*/000?.log")) == 1 + 10
