"""Files whose names change unseen, and whose writers go on all the same: every line arrives exactly once.

Nothing here may be found by a walk of the directories unless the test is about walks, so they are far apart.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from fantail_lab import LOOPBACK, Agent, Argument, Consumer, Lab, pace
from fantail_sources import Incarnation, Source

NO_WALKS = ("--rescan", "3600")
QUICK_POLLING = ("--poll", "--rescan", "0.3")
EVENTS_AT_ONCE_BYTES = 64 << 10  # what a producer takes in before it looks at files
EVENT_BYTES = 32  # with a name of up to 16 characters
DISK_BYTES = 2 << 20
WRITER_IS_QUIET_SECONDS = 7  # longer than a deleted file was once believed to be in use

ONE_OR_ALL = pytest.mark.parametrize("pattern", ("*.log", ""), ids=("plain name", "directory"))


def follow(lab: Lab, *flags: str, globs: Sequence[Argument], start: bool = True) -> tuple[Agent, Consumer]:
    """A producer that does not walk again unless the flags say so, and a consumer with both outputs."""
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True, merged=True)
    return lab.producer(link.producers[0], *(flags or NO_WALKS), globs=globs, start=start), consumer


def goes_on(lab: Lab, consumer: Consumer, source: Source, *incarnations: Incarnation, times: int = 3) -> None:
    """Each of these files of the source gets lines some times in a row, and they arrive each time."""
    for _ in range(times):
        for incarnation in incarnations:
            incarnation.append(source.numbered(5))
        lab.wait_merged(consumer)


def assert_complete_at_the_end(lab: Lab, producer: Agent, consumer: Consumer) -> None:
    """Nothing comes twice late, not from the walk either that a producer begins with."""
    assert producer.terminate() == 0
    producer.start()
    lab.source("last.log").append_lines(1)
    lab.wait_mirrored(consumer)
    assert producer.terminate() == 0
    assert consumer.terminate() == 0
    lab.assert_mirrored(consumer)
    lab.wait_merged(consumer)


def has_open(agent: Agent, path: Path) -> bool:
    """Whether the program has a file open that is, or was at its deletion, at this path."""
    names = [os.readlink(fd) for fd in Path(f"/proc/{agent.pid}/fd").iterdir()]
    return str(path) in (name.removesuffix(" (deleted)") for name in names)


def move(lab: Lab, source: Source, to: Path) -> tuple[Incarnation, Source]:
    """Renames the file of a source to another folder: that file, and the source of what comes at its path next."""
    moved = source.current
    to.parent.mkdir(parents=True, exist_ok=True)
    source.path.rename(to)
    successor = Source(source.path, lab.root / "kept" / f"after {to.name}", source.node)
    lab.sources.append(successor)
    return moved, successor


class FullDisk:
    """A small file system in memory that can be filled."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "fantail-test", folder]
        mounted = subprocess.run(command, capture_output=True, text=True)
        if mounted.returncode != 0:
            pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
        lab.cleanup.callback(subprocess.run, ["umount", folder], check=True)
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError as full:
                assert full.errno == errno.ENOSPC

    def make_space(self) -> None:
        self._ballast.unlink()


# --- renamed ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@ONE_OR_ALL
def test_a_file_closed_because_it_was_idle_is_written_and_rotated_unseen(lab: Lab, pattern: str) -> None:
    """Its last lines and its rotation are further apart than what the producer takes in before it looks at files."""
    source, *noise = (lab.source(name) for name in ("app.log", "one.log", "two.log"))
    producer, consumer = follow(lab, globs=[lab.files_of("alpha") / pattern])
    for each in (source, *noise):
        each.append_lines(10)
    lab.wait_merged(consumer)
    lab.wait_until(lambda: not has_open(producer, source.path), "the producer closes the idle file")

    producer.freeze()
    source.append_lines(1)
    for _ in range(EVENTS_AT_ONCE_BYTES // EVENT_BYTES):  # in turns: equal events in a row are one
        for each in noise:
            each.append_lines(1)
    renamed = source.rotate("app.log.1")
    source.append_lines(1)
    producer.thaw()

    lab.wait_merged(consumer)
    goes_on(lab, consumer, source, renamed, source.current)
    assert_complete_at_the_end(lab, producer, consumer)


@ONE_OR_ALL
def test_a_file_rotated_while_it_waits_to_be_recorded_is_recorded_as_what_it_was(lab: Lab, pattern: str) -> None:
    """A new file waits because the disk with the producer's state is full."""
    known, source = lab.source("known.log"), lab.source()
    known.append_lines(1)
    producer, consumer = follow(lab, globs=[lab.files_of("alpha") / pattern], start=False)
    disk = FullDisk(lab, lab.state_of(producer.name))
    producer.start()
    lab.wait_merged(consumer)

    disk.fill()
    source.append_lines(10)
    lab.wait_until(lambda: "cannot record new files" in producer.stderr(), "the file waits", explain=producer.report)
    renamed = source.rotate("app.log.1")
    source.append_lines(10)
    known.append_lines(1)
    lab.wait_merged(consumer, sources=[known])  # whoever has seen this has seen the rotation
    disk.make_space()

    lab.wait_merged(consumer)
    goes_on(lab, consumer, source, renamed, source.current)
    assert_complete_at_the_end(lab, producer, consumer)


def test_a_file_rotated_into_a_folder_that_nobody_watches_is_still_followed(lab: Lab) -> None:
    source = lab.source()
    _, consumer = follow(lab, globs=[lab.files_of("alpha") / "*.log"])
    source.append_lines(10)
    lab.wait_merged(consumer)

    moved, successor = move(lab, source, lab.root / "elsewhere" / "app.log.1")
    successor.append(source.numbered(10))

    goes_on(lab, consumer, source, moved, successor.current)
    lab.wait_mirrored(consumer)


def test_polling_follows_a_file_that_was_renamed_to_what_no_pattern_takes(lab: Lab) -> None:
    source = lab.source()
    _, consumer = follow(lab, *QUICK_POLLING, globs=[source.path])
    source.append_lines(10)
    lab.wait_merged(consumer)

    renamed = source.rotate("app.log.1")
    source.append_lines(10)

    goes_on(lab, consumer, source, renamed, source.current)
    lab.wait_mirrored(consumer)


def test_a_folder_renamed_and_made_anew_is_followed_with_all_below_it(lab: Lab) -> None:
    folder = lab.files_of("alpha") / "app"
    before = lab.source("app/below/before.log")
    _, consumer = follow(lab, globs=[lab.files_of("alpha")])
    before.append_lines(10)
    lab.wait_merged(consumer)

    folder.rename(folder.with_name("app.old"))
    after = lab.source("app/below/after.log")

    goes_on(lab, consumer, after, after.current)
    goes_on(lab, consumer, before, before.current)
    goes_on(lab, consumer, after, after.current)
    lab.wait_mirrored(consumer)


# --- more than one name -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept_as", ("alpha/app.kept", "elsewhere/app.kept"), ids=("same folder", "another folder"))
def test_a_file_of_which_another_name_is_left_is_followed_through_each(lab: Lab, kept_as: str) -> None:
    source = lab.source()
    _, consumer = follow(lab, globs=[lab.files_of("alpha") / "*.log"])
    source.append_lines(10)
    lab.wait_merged(consumer)
    other_name = lab.files_of("alpha").parent / kept_as
    other_name.parent.mkdir(exist_ok=True)
    os.link(source.path, other_name)

    def write_through_the_other_name() -> None:
        line = source.numbered(1)
        source.incarnations[0].keep(line)
        with other_name.open("ab", buffering=0) as writer:
            writer.write(line)
        lab.wait_merged(consumer)

    goes_on(lab, consumer, source, source.current, times=1)  # when it is looked at next it has two names
    for _ in range(2):
        write_through_the_other_name()
    unlinked = source.delete()

    goes_on(lab, consumer, source, unlinked)
    for _ in range(2):
        write_through_the_other_name()
    lab.wait_mirrored(consumer)


def test_files_behind_symbolic_links_are_followed_through_their_rotations(lab: Lab) -> None:
    """As the logs of containers: nobody watches the folder where the files are and are rotated."""
    links = lab.files_of("alpha") / "links"
    links.mkdir()
    target = lab.source("targets/0.log")
    target.append_lines(10)
    (links / "early.log").symlink_to(target.path)
    _, consumer = follow(lab, globs=[links / "*.log"])
    goes_on(lab, consumer, target, target.current)

    for rotation in range(1, 4):
        renamed = target.rotate(f"0.log.{rotation}")
        goes_on(lab, consumer, target, renamed, target.current, times=2)
    later = lab.source("targets/1.log")
    later.append_lines(10)
    (links / "later.log").symlink_to(later.path)

    goes_on(lab, consumer, later, later.current)
    goes_on(lab, consumer, target, target.current)
    lab.wait_mirrored(consumer)


# --- no name left -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_deleted_file_is_held_as_long_as_somebody_writes_to_it(lab: Lab) -> None:
    path = lab.files_of("alpha") / "app.log"
    link = lab.link("tcp", consumers=[LOOPBACK] * 2)
    [producer], (present, away) = lab.party(link)
    everyone = (present, away)
    written = b""

    def has_all(consumer: Consumer) -> bool:
        return consumer.merged.read_bytes() == written

    with path.open("ab", buffering=0) as writer:

        def write(line: bytes, *readers: Consumer) -> None:
            nonlocal written
            writer.write(line)
            written += line
            for reader in readers:
                lab.wait_until(lambda: has_all(reader), f"{reader.name} has {line!r}", explain=reader.report)

        write(b"everyone is here\n", *everyone)
        assert away.terminate() == 0
        write(b"one is away\n", present)
        path.unlink()
        lab.wait_until(lambda: "holding" in producer.stderr(), "the producer holds the deleted file")
        pace(WRITER_IS_QUIET_SECONDS)
        write(b"the writer goes on\n", present)
        write(b"and on\n", present)
        away.start()
        lab.wait_until(lambda: has_all(away), "who was away has everything", explain=away.report)
        write(b"still\n", *everyone)
        writer.write(b"the end")

    for consumer in everyone:
        lab.wait_line(consumer, b"the end")
        assert consumer.merged.read_bytes() == written + b"the end\n"
    lab.wait_until(lambda: not has_open(producer, path), "the producer lets the file go")


def test_polling_notices_that_a_file_with_an_unfinished_line_is_deleted(lab: Lab) -> None:
    path = lab.files_of("alpha") / "app.log"
    producer, consumer = follow(lab, *QUICK_POLLING, globs=[lab.files_of("alpha")])
    path.write_bytes(b"a line\nthe end")
    lab.wait_line(consumer, b"a line")

    path.unlink()

    lab.wait_line(consumer, b"the end")
    lab.wait_until(lambda: not has_open(producer, path), "the producer lets the file go")


# --- no bytes ---------------------------------------------------------------------------------------------------------


def test_once_over_empty_files_waits_until_a_durable_consumer_has_them(lab: Lab) -> None:
    empty = [lab.files_of("alpha") / name for name in ("one.log", "two.log")]
    for path in empty:
        path.touch()
    link = lab.link("tcp")
    producer = lab.producer(link.producers[0], "--once")
    lab.wait_until(lambda: "producer started" in producer.stderr(), "the producer has found the files")

    consumer = lab.consumer(link.consumers[0], mirror=True)
    lab.listening(consumer)

    assert producer.wait_exit() == 0
    assert consumer.terminate() == 0
    mirrors = [path for path in consumer.mirror.rglob("*") if path.is_file()]
    assert sorted(path.name for path in mirrors) == ["one.log", "two.log"]
    assert all(path.stat().st_size == 0 for path in mirrors)
