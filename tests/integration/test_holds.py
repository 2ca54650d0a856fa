"""What a producer can hold for consumers that are away, and where it gives up: always with the exact range."""

from __future__ import annotations

import os
import re
import signal

import pytest

from fantail_lab import LOOPBACK, Agent, Consumer, Lab
from fantail_sources import Source

LOSS_EXIT = 3
HOLD_LIMIT = '"hold limit exceeded"'


def one_present_one_away(lab: Lab, *producer_flags: str) -> tuple[Agent, Consumer, Consumer, Source]:
    """Two consumers have the beginning of a file, and one of them is away."""
    source = lab.source()
    link = lab.link("tcp", consumers=[LOOPBACK] * 2)
    present = lab.consumer(link.consumers[0], name="one", mirror=True)
    away = lab.consumer(link.consumers[1], name="two", mirror=True)
    producer = lab.producer(link.producers[0], *producer_flags)
    source.append_lines(100)
    lab.wait_mirrored(present, away)
    away.terminate()
    return producer, present, away, source


def losses(consumer: Consumer) -> list[tuple[int, int, str]]:
    """From, to and reason of each recorded loss."""
    found = re.findall(r"bytes are lost.*?from=(\d+).*?to=(\d+).*?reason=(\"[^\"]*\"|\S+)", consumer.stderr())
    return [(int(start), int(end), reason) for start, end, reason in found]


@pytest.mark.parametrize("limit", (("--hold-time", "0.2"), ("--hold-bytes", "1")))
def test_what_is_held_beyond_the_limit_is_a_loss_of_exactly_what_was_not_committed(
    lab: Lab, limit: tuple[str, str]
) -> None:
    producer, present, away, source = one_present_one_away(lab, *limit)
    committed = source.current.size
    source.append_lines(1000)
    end = source.current.size
    lab.wait_mirrored(present)

    source.delete()
    lab.wait_until(lambda: "giving up" in producer.stderr(), "the producer gives it up")
    away.start()

    lab.wait_until(lambda: losses(away), "the loss is recorded", explain=away.report)
    assert losses(away) == [(committed, end, HOLD_LIMIT)]
    assert away.terminate() == LOSS_EXIT
    assert present.terminate() == 0
    [mirrored] = [path for path in away.mirror.rglob(source.path.name + "*") if path.is_file()]
    content = mirrored.read_bytes()
    kept = source.incarnations[0].kept.read_bytes()
    assert content[:committed] == kept[:committed]
    assert not content[committed:].strip(b"\0"), "a hole of zeros"


def test_of_several_held_files_the_oldest_is_given_up_and_no_more_than_needed(lab: Lab) -> None:
    older, newer = sources = [lab.source("older.log"), lab.source("newer.log")]
    link = lab.link("tcp", consumers=[LOOPBACK] * 2)
    present = lab.consumer(link.consumers[0], name="one", mirror=True)
    away = lab.consumer(link.consumers[1], name="two", mirror=True)
    producer = lab.producer(link.producers[0], "--hold-bytes", "25000")
    for source in sources:
        source.append(b"known to both\n")
    lab.wait_mirrored(present, away)
    away.terminate()
    committed = older.current.size
    older.append(b"x" * 9_999 + b"\n")
    newer.append(b"y" * 19_999 + b"\n")
    lab.wait_mirrored(present)

    for source in sources:
        source.delete()
        lab.wait_until(lambda: f"path={source.path} bytes=" in producer.stderr(), "its deletion was seen")
    lab.wait_until(lambda: "giving up" in producer.stderr(), "the producer gives one up")
    away.start()

    lab.wait_until(lambda: losses(away), "the loss is recorded", explain=away.report)
    lab.wait_until(lambda: away.mirrored(newer).read_bytes() == newer.text(), "the newer is whole")
    assert losses(away) == [(committed, committed + 10_000, HOLD_LIMIT)]
    assert away.terminate() == LOSS_EXIT


def test_a_file_deleted_while_the_producer_is_down_is_a_loss_up_to_what_was_known(lab: Lab) -> None:
    producer, present, away, source = one_present_one_away(lab)
    committed = source.current.size
    source.append_lines(1000)
    end = source.current.size
    lab.wait_mirrored(present)
    assert producer.terminate() == 0

    source.delete()
    away.start()
    producer.start()

    lab.wait_until(lambda: losses(away), "the loss is recorded", explain=away.report)
    [(first, last, _)] = losses(away)
    assert (first, last) == (committed, end)
    assert away.terminate() == LOSS_EXIT


def test_a_blocked_output_holds_up_the_others_of_its_streams_and_nothing_is_lost(lab: Lab) -> None:
    source = lab.source()
    source.append_lines(1000)
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True, start=False)
    in_the_way = consumer.mirror.parent / "taken"
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("a file where the folder of an output should be")
    blocked = in_the_way / "merged.log"
    consumer.flags += ["--output", f"file:{blocked}"]
    consumer.start()
    lab.producer(link.producers[0])
    lab.wait_until(lambda: str(blocked) in consumer.stderr(), "the output is named", explain=consumer.report)

    in_the_way.unlink()

    lab.wait_mirrored(consumer)
    lab.wait_until(lambda: blocked.read_bytes() == source.path.read_bytes(), "the other output has it, too")
    assert consumer.terminate() == 0


def test_a_second_signal_ends_a_consumer_that_cannot_settle(lab: Lab) -> None:
    source = lab.source()
    source.append_lines(10)
    _, consumer = lab.pair(mirror=False, merged=True)
    lab.wait_merged(consumer)
    folder = consumer.merged.parent
    with consumer.merged.open("rb") as deleted:
        consumer.freeze()
        consumer.merged.unlink()
        folder.rmdir()
        folder.write_text("in the way of another")
        consumer.thaw()
        last = source.append_lines(1)
        lab.wait_until(lambda: deleted.seek(0) == 0 and deleted.read().endswith(last), "the consumer has taken the line")

    os.kill(consumer.pid, signal.SIGTERM)
    lab.wait_until(lambda: "outputs are not settled" in consumer.stderr(), "the consumer does not end yet")
    os.kill(consumer.pid, signal.SIGTERM)

    assert consumer.wait_exit() == 1
    assert "stopped again" in consumer.stderr(), "it was no time-out that ended it"
    folder.unlink()
    consumer.start()
    lab.wait_line(consumer, last.rstrip())
