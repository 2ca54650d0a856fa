"""A file that grows by 20 MB/s and is rotated all the time, in every way there is, while the producer is stopped and killed.

No byte is lost and none comes twice, except what nobody could read: of a kind that destroys what it rotates, the bytes that
came and went while the producer did not run leave no trace, and those that it knew of are a loss with their exact range.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest

from fantail_lab import LOOPBACK, Agent, Consumer, Lab, pace
from fantail_sources import LINE_BYTES, Incarnation, LogWriter, Source

BYTES_PER_SECOND = 20_000_000
SECONDS = float(os.environ.get("FANTAIL_ROTATION_SECONDS", "2"))
LONG = SECONDS >= 15
ROTATE_EVERY = 1.0 if LONG else 0.4
STOPPED_ROTATIONS = 5 if LONG else 2
DEADLINE = 120.0
LOSS_EXIT = 3


# --- kinds -------------------------------------------------------------------------------------------------------------


class Left(Enum):
    """What a rotation leaves of the file for who looks later."""

    ALL = "somewhere"
    OPEN = "to who has it open"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Kind:
    rotate: Callable[[Drill, int], object]
    patterns: tuple[str, ...] = ("live/*.log",)
    left: Left = Left.ALL
    many_unseen: bool = True
    """Files may come and be rotated before anybody has looked at the folder at all."""


def beside(drill: Drill, number: int) -> None:
    """Under a name that no pattern takes."""
    drill.source.rotate(f"app.log.{number:03d}")


def to_a_name_that_is_taken(drill: Drill, number: int) -> None:
    drill.source.rotate(f"rotated-{number:03d}.log")


def to_another_folder(drill: Drill, number: int) -> None:
    drill.source.rotate(f"../old/app-{number:03d}.log")


def by_link_and_unlink(drill: Drill, number: int) -> None:
    """For a moment the file has both names."""
    path = drill.source.path
    os.link(path, path.with_name(f"{path.name}.{number:03d}"))
    drill.source.delete()


def by_copy_and_truncate(drill: Drill, number: int) -> None:
    """Nothing is written meanwhile: what is appended between copying and truncating is really lost."""
    path = drill.source.path
    shutil.copyfile(path, path.with_name(f"{path.name}.{number:03d}"))
    drill.source.truncate()


def to_another_file_system(drill: Drill, number: int) -> None:
    """As `mv` does it."""
    shutil.copyfile(drill.source.path, drill.files / "old" / f"app-{number:03d}.log")
    drill.source.delete()


def by_switching_a_link(drill: Drill, number: int) -> None:
    """The writer opens a link, which leads to another file from now on."""
    switch_link(drill.source.path, f"app-{number:03d}.log")
    drill.source.replaced()


def switch_link(link: Path, target: str) -> None:
    following = link.with_name("next")
    following.symlink_to(target)
    following.rename(link)


def by_renaming_over(drill: Drill, number: int) -> None:
    following = drill.source.path.with_name("following")
    following.touch()
    following.rename(drill.source.path)
    drill.source.replaced()


def by_truncating(drill: Drill, number: int) -> None:
    drill.source.truncate()


def compressed_at_once(drill: Drill, number: int) -> None:
    beside(drill, number)
    drill.compress(number)


def compressed_next_time(drill: Drill, number: int) -> None:
    beside(drill, number)
    if number > 1:
        drill.compress(number - 1)


ALL_NAMES = ("live/*.log*",)
WITH_OLD = ("live/*.log", "old/*.log")

KINDS = {
    "renamed beside": Kind(beside, many_unseen=False),
    "renamed to a name that is taken": Kind(to_a_name_that_is_taken),
    "moved to another folder": Kind(to_another_folder, WITH_OLD),
    "linked and unlinked": Kind(by_link_and_unlink, ALL_NAMES),
    "copied and truncated": Kind(by_copy_and_truncate, ALL_NAMES),
    "moved to another file system": Kind(to_another_file_system, WITH_OLD),
    "a link is switched": Kind(by_switching_a_link),
    "another is renamed over it": Kind(by_renaming_over, left=Left.OPEN),
    "truncated and refilled": Kind(by_truncating, left=Left.NOTHING),
    "compressed at once": Kind(compressed_at_once, left=Left.OPEN),
    "compressed next time": Kind(compressed_next_time, left=Left.OPEN),
    "compressed at once, archives are taken": Kind(compressed_at_once, ALL_NAMES),
    "compressed next time, archives are taken": Kind(compressed_next_time, ALL_NAMES),
}


# --- the drill ---------------------------------------------------------------------------------------------------------


@dataclass
class Unseen:
    """Incarnations by their numbers, of those that do not leave all that they were."""

    never: set[int] = field(default_factory=set)
    """They came and went while the producer did not run."""
    cut: set[int] = field(default_factory=set)
    """The producer knew them, and they went while it did not run."""


class Drill:
    """Rotates the source from the writer's thread, and lets the test stop and start the producer in between."""

    def __init__(self, lab: Lab, kind: Kind, source: Source, files: Path, consumer: Consumer, producer: Agent) -> None:
        self.source = source
        self.files = files
        self.rotations = 0
        self.unseen = Unseen()
        self._lab = lab
        self._kind = kind
        self._consumer = consumer
        self._producer = producer
        self._runs = True
        self._since = 0
        self._most = math.inf
        self._changed = threading.Condition()
        self._compressing: list[subprocess.Popen[bytes]] = []

    def rotate(self, _source: Source, _number: int) -> None:
        """What is destroyed while the producer runs is destroyed when it could be seen, not before."""
        if self._kind.left is not Left.ALL:
            self._lab.wait_until(lambda: not self._runs or self._in_sight(), "what is to be rotated is seen")
        with self._changed:
            self._changed.wait_for(lambda: self.rotations < self._most)
            self._kind.rotate(self, self.rotations + 1)
            self.rotations += 1
            self._changed.notify_all()

    def compress(self, number: int) -> None:
        name = f"{self.source.path.name}.{number:03d}"
        self._compressing.append(subprocess.Popen(["gzip", "-1", name], cwd=self.source.path.parent))

    def stop(self) -> None:
        """SIGSTOP over some rotations."""
        with self._away(self._producer.freeze, self._producer.thaw, holds=True):
            self._wait_rotated(STOPPED_ROTATIONS)

    def kill(self, rotations: int) -> None:
        """kill -9, and a start after so many rotations."""

        def start() -> None:
            began = self._producer.stderr().count("producer started")
            self._producer.start()
            self._lab.wait_until(lambda: self._producer.stderr().count("producer started") > began, "it has started")

        most = math.inf if self._kind.many_unseen else rotations
        with self._away(self._producer.kill9, start, holds=False, most=most):
            self._wait_rotated(rotations)

    def finish(self) -> None:
        for process in self._compressing:
            assert process.wait() == 0

    @contextlib.contextmanager
    def _away(
        self, go: Callable[[], object], come: Callable[[], object], holds: bool, most: float = math.inf
    ) -> Iterator[None]:
        """`holds`: it keeps what it has open. At most so many rotations meanwhile."""
        with self._changed:
            if self._kind.left is not Left.ALL or not self._kind.many_unseen:
                self._lab.wait_until(self._begun, "what is there now is seen")
            go()
            self._runs = False
            self._since = self.rotations
            self._most = self.rotations + most
        yield
        with self._changed:
            come()
            self._runs = True
            self._most = math.inf
            self._note_unseen(holds)
            self._changed.notify_all()

    def _wait_rotated(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.rotations >= self._since + count, DEADLINE), "it is rotated"

    def _note_unseen(self, holds: bool) -> None:
        if self._kind.left is Left.ALL or self.rotations == self._since:
            return
        self.unseen.never |= set(range(self._since + 1, self.rotations))
        if self._kind.left is Left.NOTHING or not holds:
            self.unseen.cut.add(self._since)

    def _begun(self) -> bool:
        """The consumer has something of the file that is there now."""
        if len(self.source.incarnations) <= self.rotations or self._current.size == 0:
            return False
        return self._mirror() is not None

    def _mirror(self) -> Path | None:
        wanted = beginning(self._current.kept)
        return next((path for path in self._consumer.mirror.rglob("app.log*") if beginning(path) == wanted), None)

    def _in_sight(self) -> bool:
        """The producer has what it needs to read the file to its end."""
        if not self._begun():
            return False
        mirror = self._mirror()
        return self._kind.left is Left.OPEN or (mirror is not None and mirror.stat().st_size == self._current.size)

    @property
    def _current(self) -> Incarnation:
        return self.source.incarnations[self.rotations]


def beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LINE_BYTES)


@pytest.fixture
def other_file_system(lab: Lab) -> Iterator[Path]:
    """A folder that is not where the test's own is."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == lab.root.stat().st_dev:
        pytest.skip("/dev/shm is no file system of its own")
    folder = Path(tempfile.mkdtemp(prefix="ft-", dir=memory))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", KINDS
)
def test_rotation_all_the_time_loses_and_doubles_nothing(lab: Lab, name: str, request: pytest.FixtureRequest) -> None:
    kind = KINDS[name]
    files = lab.files_of("alpha")
    live = request.getfixturevalue("other_file_system") if name == "moved to another file system" else files / "live"
    for folder in (live, files / "old"):
        folder.mkdir(exist_ok=True)
    source = lab.source_at(live / "app.log")
    if name == "a link is switched":
        switch_link(source.path, "app-000.log")
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True, merged=True)
    globs = [live / pattern.removeprefix("live/") if "live/" in pattern else files / pattern for pattern in kind.patterns]
    producer = lab.producer(link.producers[0], globs=globs)
    drill = Drill(lab, kind, source, files, consumer, producer)

    begin = time.monotonic()
    with LogWriter(source, BYTES_PER_SECOND, rotate_every=ROTATE_EVERY, rotate=drill.rotate):
        pace(SECONDS / 6)
        drill.stop()
        for _ in range(2):
            pace(lab.rng.uniform(0.1, SECONDS / 5))
            drill.kill(rotations=lab.rng.randrange(0, 3 if kind.many_unseen else 2))
        pace(max(SECONDS / 6, begin + SECONDS - time.monotonic()))
    drill.finish()

    assert drill.rotations >= STOPPED_ROTATIONS
    if kind.left is Left.ALL:
        lab.wait_mirrored(consumer, deadline=DEADLINE)
        wait_each_line_once(lab, consumer, source)
    else:
        wait_what_was_seen(lab, consumer, source, drill.unseen)


def wait_each_line_once(lab: Lab, consumer: Consumer, source: Source) -> None:
    """Every line that was written is in the merged file, none is there twice. By their numbers: there are millions."""
    written = sum(incarnation.size for incarnation in source.incarnations)
    lab.wait_until(lambda: consumer.merged.stat().st_size == written, f"all {written} bytes are merged", deadline=DEADLINE)
    assert consumer.terminate() == 0
    assert set(times_seen(consumer, source)) == {1}


def times_seen(consumer: Consumer, source: Source) -> bytearray:
    """How often each line is in the merged file. The end of a line of which the rest was lost does not count."""
    seen = bytearray(sum(incarnation.size for incarnation in source.incarnations) // LINE_BYTES)
    with consumer.merged.open("rb") as merged:
        for line in merged:
            if len(line) == LINE_BYTES:
                seen[int(line.split(b" ", 2)[1])] += 1
    return seen


# --- what may be missing -----------------------------------------------------------------------------------------------


def told(lab: Lab, consumer: Consumer, what: str) -> list[dict]:
    done = lab.run("fantail-consumer", what, "--json", "--state-dir", lab.state_of(consumer.name))
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def losses(lab: Lab, consumer: Consumer) -> list[tuple[int, int]]:
    return [(loss["from"], loss["to"]) for loss in told(lab, consumer, "losses")]


def wait_what_was_seen(lab: Lab, consumer: Consumer, source: Source, unseen: Unseen) -> None:
    """All is there of what could be read. What was cut is there up to a loss, which ends where the stream does."""
    kept = {i: incarnation.kept for i, incarnation in enumerate(source.incarnations) if incarnation.size}
    number_of = {beginning(path): i for i, path in kept.items()}

    def mirrors() -> dict[int, Path]:
        """By the incarnation whose first line it has."""
        files = [path for path in consumer.mirror.rglob("app.log*") if path.stat().st_size]
        there = {number_of[beginning(path)]: path for path in files}
        assert len(there) == len(files), f"an incarnation is mirrored twice: {files}"
        return there

    def short() -> list[str]:
        there = mirrors()
        size = {i: there[i].stat().st_size if i in there else 0 for i in kept}
        wanted = kept.keys() - unseen.cut - (unseen.never - there.keys())
        return [f"{kept[i]}: {size[i]} of {kept[i].stat().st_size}" for i in wanted if size[i] != kept[i].stat().st_size]

    lab.wait_until(lambda: not short(), "what was seen is mirrored", DEADLINE, lambda: "\n".join(short()))
    # Streams that ended are through, too.

    def behind() -> list[dict]:
        return [stream for stream in told(lab, consumer, "status")[1:] if stream["behind"] != 0]

    lab.wait_until(lambda: not behind(), "no stream lacks anything", DEADLINE, lambda: str(behind()))
    lost = losses(lab, consumer)
    assert consumer.terminate() == (LOSS_EXIT if lost else 0)

    there = mirrors()
    delivered = {i: equal_bytes(kept[i], path) for i, path in there.items()}
    for i in there.keys() - unseen.cut:
        assert delivered[i] == kept[i].stat().st_size, f"{there[i]} is not {kept[i]}"
    for begin, end in lost:
        cut = [i for i in unseen.cut if i in there and delivered[i] == begin and end <= kept[i].stat().st_size]
        assert len(cut) == 1, f"a loss of {begin} to {end} is of none of {[(i, delivered.get(i)) for i in unseen.cut]}"
    for i in unseen.cut & there.keys():
        hole = there[i].stat().st_size - delivered[i]
        assert hole == 0 or (delivered[i], delivered[i] + hole) in lost, f"{there[i]}: an unrecorded hole of {hole} bytes"

    seen = times_seen(consumer, source)
    for i, path in kept.items():
        first = int(beginning(path).split(b" ", 2)[1])
        whole = delivered.get(i, 0) // LINE_BYTES
        assert set(seen[first : first + whole]) <= {1}, f"the lines of {path} that are mirrored are merged, each once"
        assert not any(seen[first + whole : first + path.stat().st_size // LINE_BYTES])


def equal_bytes(left: Path, right: Path) -> int:
    """How long the common beginning of two files is."""
    at = 0
    with left.open("rb") as one, right.open("rb") as other:
        while (a := one.read(1 << 20)) and (b := other.read(1 << 20)):
            if a != b:
                return at + len(os.path.commonprefix([a, b]))
            at += len(a)
    return at


@pytest.mark.parametrize("read", (True, False), ids=("read", "not read"))
@pytest.mark.parametrize("how", ("ended", "killed"))
@pytest.mark.parametrize("what", ("truncated and refilled", "another is renamed over it"))
def test_what_is_destroyed_while_nobody_looks_is_a_loss_of_exactly_what_was_known(
    lab: Lab, what: str, how: str, read: bool
) -> None:
    """A consumer that was away lacks bytes which nobody can read any more. The producer has read them, or seen only."""
    source = lab.source()
    source.append_lines(1000)
    link = lab.link("tcp", consumers=[LOOPBACK] * 2)
    away, other = (lab.consumer(seat, name=name, mirror=True) for name, seat in zip(("one", "two"), link.consumers))
    producer = lab.producer(link.producers[0], "--drain", "0")
    lab.wait_mirrored(away, other)
    assert away.terminate() == 0
    if not read:
        assert other.terminate() == 0
    committed = source.current.size
    source.append_lines(1000)
    known = source.current.size
    lab.wait_until(lambda: saved_size(lab, producer) == known, "its length is saved")
    if read:
        lab.wait_mirrored(other)
    if how == "killed":
        producer.kill9()
    else:
        producer.ask_to_end()
        producer.wait_exit()

    if what == "truncated and refilled":
        source.truncate()
    else:
        source.path.with_name("following").touch()
        source.path.with_name("following").rename(source.path)
        source.replaced()
    source.append_lines(3000)
    producer.start()
    away.start()
    lab.wait_until(lambda: losses(lab, away), "the loss is recorded", explain=lambda: str(told(lab, away, "status")))
    lab.wait_until(lambda: away.mirrored(source).read_bytes() == source.current.kept.read_bytes(), "the new one is there")

    assert losses(lab, away) == [(committed, known)]
    assert away.terminate() == LOSS_EXIT
    [old] = away.older(source)
    assert old.read_bytes().rstrip(b"\0") == source.incarnations[0].kept.read_bytes()[:committed]


def saved_size(lab: Lab, producer: Agent) -> int:
    """Of its only stream, in its state directory."""
    registry = lab.state_of(producer.name) / "registry.db"
    with contextlib.closing(sqlite3.connect(f"file:{registry}?mode=ro", uri=True)) as database:
        return database.execute("SELECT max(head) FROM streams").fetchone()[0]
