"""Files as they really behave: they grow, appear, vanish, rotate, are cut and rewritten; every incarnation arrives."""

from __future__ import annotations

import os
import re

import pytest

from fantail_lab import LOOPBACK, Consumer, Lab

OLDER_MIRROR = re.compile(r".*@.*\d{4}.*-[0-9a-f]{8}")


def assert_two_incarnations(lab: Lab, consumer: Consumer) -> None:
    """The live one under its path, the older one beside it with time and stream id in its name."""
    [source] = lab.sources
    [older] = consumer.older(source)
    assert OLDER_MIRROR.fullmatch(older.name)
    assert older.read_bytes() == source.incarnations[0].kept.read_bytes()
    assert consumer.mirrored(source).read_bytes() == source.path.read_bytes()


def test_a_growing_file_is_followed(lab: Lab) -> None:
    source = lab.source()
    _, consumer = lab.pair(merged=True)
    for lines in (1, 10, 1000, 1):
        source.append_lines(lines)
        lab.wait_mirrored(consumer)
        lab.wait_merged(consumer)

    assert consumer.mirrored(source).read_bytes() == source.path.read_bytes()


def test_any_bytes_are_mirrored(lab: Lab) -> None:
    source = lab.source("data.bin")
    source.append(lab.rng.randbytes(3_000_001))
    _, consumer = lab.pair()

    lab.wait_mirrored(consumer)


def test_a_file_that_appears_later_is_found(lab: Lab) -> None:
    lab.source("early.log").append_lines(10)
    _, consumer = lab.pair()
    lab.wait_mirrored(consumer)

    lab.source("late.log").append_lines(10)

    lab.wait_mirrored(consumer)


def test_new_folders_below_a_double_star_are_found(lab: Lab) -> None:
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True)
    lab.producer(link.producers[0], globs=[f"{lab.files_of('alpha')}/**/*.log"])
    lab.source("top.log").append_lines(10)
    lab.wait_mirrored(consumer)

    lab.source("new/and/deeper/down.log").append_lines(10)

    lab.wait_mirrored(consumer)


def test_polling_finds_the_same(lab: Lab) -> None:
    source = lab.source()
    source.append_lines(10)
    _, consumer = lab.pair("--poll", "--rescan", "1")
    lab.wait_mirrored(consumer)

    source.append_lines(10)
    lab.source("late.log").append_lines(10)

    lab.wait_mirrored(consumer)


def test_a_deleted_file_stays_mirrored_and_its_successor_is_another_stream(lab: Lab) -> None:
    source = lab.source()
    _, consumer = lab.pair()
    source.append_lines(100)
    lab.wait_mirrored(consumer)

    source.delete()
    source.append_lines(50)

    lab.wait_mirrored(consumer)
    assert_two_incarnations(lab, consumer)


def test_what_is_written_to_a_file_after_its_deletion_arrives(lab: Lab) -> None:
    source = lab.source()
    _, consumer = lab.pair(merged=True)
    source.append_lines(100)
    lab.wait_mirrored(consumer)

    deleted = source.delete()
    deleted.append(source.numbered(100))

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


def test_a_deleted_file_is_held_for_a_consumer_that_is_away(lab: Lab) -> None:
    source = lab.source()
    link = lab.link("tcp", consumers=[LOOPBACK] * 2)
    _, (present, away) = lab.party(link)
    source.append_lines(100)
    lab.wait_mirrored(present, away)
    away.terminate()
    source.append_lines(1000)
    lab.wait_mirrored(present)

    source.delete()
    away.start()

    lab.wait_mirrored(away)
    lab.wait_merged(present, away)


@pytest.mark.parametrize("pattern", ("app.log", "app.log*"))
def test_rotation_by_renaming_sends_nothing_twice_and_loses_nothing(lab: Lab, pattern: str) -> None:
    source = lab.source()
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True, merged=True)
    lab.producer(link.producers[0], globs=[source.path.with_name(pattern)])
    source.append_lines(100)
    lab.wait_mirrored(consumer)

    renamed = source.rotate("app.log.1")
    source.append_lines(50)
    renamed.append(source.numbered(20))

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)
    assert_two_incarnations(lab, consumer)


def test_rotations_in_a_row_are_all_followed(lab: Lab) -> None:
    source = lab.source()
    _, consumer = lab.pair(merged=True)
    for number in range(10):
        source.append_lines(200)
        source.rotate(f"app.log.{number}")
    source.append_lines(200)

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


def test_a_truncated_file_is_a_new_stream(lab: Lab) -> None:
    source = lab.source()
    _, consumer = lab.pair(merged=True)
    source.append_lines(100)
    lab.wait_mirrored(consumer)

    source.truncate()
    source.append_lines(10)

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)
    assert_two_incarnations(lab, consumer)


@pytest.mark.parametrize("lines", (5, 10, 20), ids=("shorter", "equally long", "longer"))
def test_a_file_rewritten_in_place_is_a_new_stream(lab: Lab, lines: int) -> None:
    source = lab.source()
    _, consumer = lab.pair(merged=True)
    source.append_lines(10)
    lab.wait_mirrored(consumer)

    source.rewrite(source.numbered(lines))

    lab.wait_mirrored(consumer)
    source.append_lines(10)
    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)
    assert_two_incarnations(lab, consumer)


def test_files_with_equal_beginnings_are_two_streams(lab: Lab) -> None:
    head = lab.rng.randbytes(10_000)
    for name in ("one.bin", "two.bin", "three.bin"):
        lab.source(name).append(head)
    lab.sources[1].append(b"and more")
    _, consumer = lab.pair()

    lab.wait_mirrored(consumer)


def test_a_hard_link_is_the_same_stream(lab: Lab) -> None:
    source = lab.source()
    source.append_lines(100)
    os.link(source.path, source.path.with_name("linked.log"))
    producer, consumer = lab.pair("--once")

    assert producer.wait_exit() == 0

    lab.assert_mirrored(consumer)
