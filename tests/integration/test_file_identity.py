"""Which file is which stream, where names, inodes and beginnings mislead: copies, editors, used inodes, equal headers."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from fantail_lab import Agent, Consumer, Lab

PATTERNS = ("app.log", "app.log*")


def followed(lab: Lab, pattern: str = "*", *flags: object) -> tuple[Agent, Consumer]:
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True, merged=True)
    return lab.producer(link.producers[0], *flags, globs=[lab.files_of("alpha") / pattern]), consumer


def another_file_system(lab: Lab) -> Path:
    """A folder on a tmpfs, removed with the lab."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == lab.root.stat().st_dev:
        pytest.skip("no second file system at /dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="ft-", dir=shm))
    lab.cleanup.callback(shutil.rmtree, folder)
    return folder


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("lines", (3, 1000), ids=("smaller than a digest", "larger"))
def test_bytes_truncated_before_they_were_read_come_out_of_the_copy(lab: Lab, lines: int, pattern: str) -> None:
    source = lab.source()
    source.append_lines(lines)
    producer, consumer = followed(lab, pattern)
    lab.wait_mirrored(consumer)
    producer.kill9()

    source.append_lines(lines)
    shutil.copyfile(source.path, source.path.with_name("app.log.1"))
    source.truncate()
    source.append_lines(lines * 3)
    producer.start()

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


@pytest.mark.parametrize("running", (True, False), ids=("running", "down"))
def test_a_file_moved_to_another_file_system_is_not_sent_again(lab: Lab, running: bool) -> None:
    source = lab.source()
    source.append_lines(1000)
    elsewhere = another_file_system(lab)
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True, merged=True)
    globs = [f"{lab.files_of('alpha')}/*", f"{elsewhere}/*.moved"]
    producer = lab.producer(link.producers[0], globs=globs)
    lab.wait_mirrored(consumer)

    if not running:
        producer.kill9()
    moved = source.current
    moved.append(source.numbered(1000))
    subprocess.run(["mv", source.path, elsewhere / "app.moved"], check=True)
    more = source.numbered(10)
    with (elsewhere / "app.moved").open("ab") as file:
        file.write(more)
    moved.keep(more)
    if not running:
        producer.start()

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)
    producer.kill9()
    producer.start()
    lab.source("after.log").append_lines(1)
    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


def test_a_copy_of_a_live_file_is_sent_when_it_becomes_another(lab: Lab) -> None:
    source = lab.source()
    source.append_lines(1000)
    producer, consumer = followed(lab)
    lab.wait_mirrored(consumer)

    copy = lab.source("app.log.bak")
    shutil.copyfile(source.path, copy.path)
    lab.wait_until(lambda: "a copy of what is sent already" in producer.stderr(), "the copy is recognised")
    source.append_lines(10)
    lab.wait_mirrored(consumer)  # and nothing of the copy
    producer.kill9()
    producer.start()
    source.append_lines(10)
    lab.wait_mirrored(consumer)

    copy.current.keep(copy.path.read_bytes())
    copy.append(b"a line of its own\n")
    lab.wait_mirrored(consumer)


def test_a_full_copy_is_not_sent_when_its_original_is_long_gone(lab: Lab) -> None:
    source = lab.source()
    source.append_lines(1000)
    producer, consumer = followed(lab)
    lab.wait_mirrored(consumer)
    shutil.copyfile(source.path, source.path.with_name("app.bak"))
    lab.wait_until(lambda: "a copy of what is sent already" in producer.stderr(), "the copy is recognised")

    source.delete()
    source.append_lines(10)

    lab.wait_mirrored(consumer)
    producer.kill9()
    producer.start()
    source.append_lines(10)
    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


@pytest.mark.parametrize("size", (1, 20, 63, 64, 200))
def test_files_with_the_same_header_are_streams_of_their_own(lab: Lab, size: int) -> None:
    header = b"h" * (size - 1) + b"\n"
    _, consumer = followed(lab)
    for name in ("data-1.csv", "data-2.csv", "data.csv", "other.csv"):
        source = lab.source(name)
        source.append(header)
        lab.wait_mirrored(consumer)
        source.append(f"{name}, 1\n".encode())
        lab.wait_mirrored(consumer)


def test_files_of_only_the_same_header_are_all_there(lab: Lab) -> None:
    _, consumer = followed(lab)
    for name in ("data-1.csv", "data-2.csv", "data-3.csv"):
        lab.source(name).append(b"a,b,c\n")
        lab.wait_mirrored(consumer)


def test_an_empty_file_is_followed_when_it_gets_its_first_bytes(lab: Lab) -> None:
    _, consumer = followed(lab)
    lab.source("full.log").append_lines(1)
    lab.wait_mirrored(consumer)
    source = lab.source("empty.log")
    source.append(b"")
    lab.wait_until(lambda: consumer.mirrored(source).exists(), "the empty file is known")

    source.append_lines(10)

    lab.wait_mirrored(consumer)


@pytest.mark.parametrize("running", (True, False), ids=("running", "down"))
@pytest.mark.parametrize("how", ("written beside it and renamed", "backed up and rewritten in place"))
def test_an_editor_loses_nothing(lab: Lab, how: str, running: bool) -> None:
    """As vim does with and without `backupcopy`."""
    source = lab.source()
    source.append_lines(100)
    producer, consumer = followed(lab)
    lab.wait_mirrored(consumer)
    if not running:
        producer.kill9()

    backup = source.path.with_name("app.log~")
    edited = source.numbered(15)
    if how.startswith("written"):
        source.path.rename(backup)
        source._live = False
        source.append(edited)
    else:
        shutil.copyfile(source.path, backup)
        source.truncate()
        source.append(edited)
    backup.unlink()
    if not running:
        producer.start()
    source.append_lines(10)

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


@pytest.mark.parametrize("running", (True, False), ids=("running", "down"))
def test_an_inode_that_is_used_again_at_once_is_another_stream(lab: Lab, running: bool) -> None:
    """On a tmpfs, where the next file gets the number of the last one, or makes up its own."""
    folder = another_file_system(lab)
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True, merged=True)
    producer = lab.producer(link.producers[0], globs=[f"{folder}/*"])
    path = folder / "app.log"
    expected = b""
    for turn in range(5):
        data = b"".join(b"%d %06d\n" % (turn, line) for line in range(2000))
        path.write_bytes(data)
        expected += data
        lab.wait_until(lambda: consumer.merged.stat().st_size == len(expected), f"the lines of turn {turn} arrive")
        if not running:
            producer.kill9()
        path.unlink()
        if not running:
            producer.start()
    assert sorted(consumer.merged_lines()) == sorted(expected.splitlines())


@pytest.mark.parametrize("running", (True, False), ids=("stopped", "down"))
def test_a_file_refilled_past_its_old_length_between_two_looks_is_another_stream(lab: Lab, running: bool) -> None:
    source = lab.source()
    source.append_lines(500)
    producer, consumer = followed(lab)
    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)

    if running:
        producer.freeze()
    else:
        producer.kill9()
    source.truncate()
    source.append_lines(700)
    if running:
        producer.thaw()
    else:
        producer.start()

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


def test_a_link_that_is_switched_from_day_to_day_sends_each_file_once(lab: Lab) -> None:
    days = [lab.source(f"app-2026-11-{day}.log") for day in (21, 22, 23)]
    link = lab.files_of("alpha") / "current"
    _, consumer = followed(lab)
    for day in days:
        day.append_lines(100)
        temporary = link.with_name(".current")
        temporary.symlink_to(day.path.name)
        temporary.rename(link)
        day.append_lines(100)
        lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)
