"""Source files that Debian's logrotate rotates while they are written, whatever the producer does meanwhile: every line once."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from fantail_lab import Agent, Consumer, Lab, pace
from fantail_sources import line_difference

LINE = 200
BYTES_PER_SECOND = 3_000_000
ROTATE_EVERY = 0.8
ROTATIONS = 5

TROUBLES = ("running", "stopped", "killed", "down")
"""What happens to the producer while files are rotated."""

pytestmark = pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not installed")


class Program:
    """Writes numbered lines to one path, opening it with O_APPEND, as programs do; keeps all lines in one file."""

    def __init__(self, lab: Lab, name: str = "app.log") -> None:
        self.path = lab.files_of("alpha") / name
        self.kept = lab.root / "kept" / "lines"
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._fd = -1
        self._kept = os.open(self.kept, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.reopen()

    def reopen(self) -> None:
        """What a daemon does in `postrotate`."""
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        with self._lock:
            old, self._fd = self._fd, fd
        if old >= 0:
            os.close(old)

    def paused(self) -> threading.RLock:
        """While it is held nothing is written: what is appended between copying and truncating would really be lost."""
        return self._lock

    def write(self, lines: int) -> None:
        data = b"".join(b"%09d " % next(self._numbers) + b"x" * (LINE - 11) + b"\n" for _ in range(lines))
        with self._lock:
            for fd in (self._kept, self._fd):
                assert os.write(fd, data) == len(data)

    def __enter__(self) -> Program:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        assert self._thread is not None
        self._thread.join()

    def _run(self) -> None:
        begin, written = time.monotonic(), 0
        while not self._stopping.wait(0.01):
            due = int((time.monotonic() - begin) * BYTES_PER_SECOND) // LINE - written
            self.write(due)
            written += due


class Rotator:
    """logrotate with one rule, run on demand."""

    def __init__(self, lab: Lab, program: Program, rules: str, pause: bool = True) -> None:
        """`pause`: the program writes nothing while it is copied and truncated."""
        self._program = program
        self._pause = pause
        self._rules = lab.root / "logrotate.conf"
        self._state = lab.root / "logrotate.state"
        self._rules.write_text(f"{program.path} {{\n  rotate 100\n" + rules + "}\n")
        self._rules.chmod(0o600)
        self.copies = "copytruncate" in rules

    def rotate(self) -> None:
        if self.copies:
            with self._program.paused() if self._pause else contextlib.nullcontext():
                self._run()
        else:
            self._run()
            self._program.reopen()

    def rotate_in_a_pause(self) -> None:
        """What is written to a file that is compressed already is in nothing that has a name."""
        with self._program.paused():
            self.rotate()

    def _run(self) -> None:
        command = ["logrotate", "--force", "--state", self._state, self._rules]
        subprocess.run(command, check=True, capture_output=True)


def wait_each_line_once(lab: Lab, consumer: Consumer, program: Program) -> None:
    expected = program.kept.stat().st_size

    def difference() -> str:
        return line_difference([program.kept], consumer.merged.read_bytes() if consumer.merged.exists() else b"")

    def missing_or_twice() -> str:
        """Lines of several streams need not be in order."""
        return "" if "not in order" in (found := difference()) else found

    lab.wait_until(
        lambda: consumer.merged.stat().st_size == expected and not missing_or_twice(),
        f"{consumer.name} has all {expected} bytes of lines once",
        explain=lambda: (missing_or_twice() or f"{consumer.merged.stat().st_size} bytes") + mirrors(consumer),
    )
    # The mirrors of all streams, oldest first, are the same lines.
    live = consumer.mirror / "alpha" / str(program.path).lstrip("/")
    size = sum(path.stat().st_size for path in live.parent.iterdir())
    assert size == expected, mirrors(consumer)


def mirrors(consumer: Consumer) -> str:
    return "\n" + "\n".join(f"  {path} {path.stat().st_size}" for path in sorted(consumer.mirror.rglob("*")) if path.is_file())


def trouble(lab: Lab, producer: Agent, kind: str, rotate: object) -> None:
    if kind == "running":
        rotate()
    elif kind == "stopped":
        producer.freeze()
        rotate()
        producer.thaw()
    elif kind == "killed":
        rotate()
        pace(lab.rng.uniform(0, 0.1))
        producer.kill9()
        producer.start()
    elif kind == "down":
        producer.kill9()
        pace(lab.rng.uniform(0, 0.2))
        rotate()
        pace(lab.rng.uniform(0, 0.2))
        producer.start()


RULES = {
    "create": "  create\n  nocompress\n",
    "nocreate": "  nocreate\n  nocompress\n",
    "dateext": "  create\n  nocompress\n  dateext\n  dateformat -%Y%m%d-%s\n",
    "copytruncate": "  copytruncate\n  nocompress\n",
    "copytruncate dateext": "  copytruncate\n  nocompress\n  dateext\n  dateformat -%Y%m%d-%s\n",
    "delaycompress": "  create\n  compress\n  delaycompress\n",
}


@pytest.mark.parametrize("kind", TROUBLES)
@pytest.mark.parametrize("pattern", ("app.log", "app.log*"))
@pytest.mark.parametrize("rules", RULES)
def test_each_line_arrives_once(lab: Lab, rules: str, pattern: str, kind: str) -> None:
    program = Program(lab)
    consumer, producer = watched(lab, pattern, *(("--exclude", "*.gz")))
    rotator = Rotator(lab, program, RULES[rules])
    with program:
        for _ in range(ROTATIONS):
            pace(ROTATE_EVERY if "dateext" not in rules else 1.1)
            trouble(lab, producer, kind, rotator.rotate)
    wait_each_line_once(lab, consumer, program)


@pytest.mark.parametrize("kind", TROUBLES)
@pytest.mark.parametrize("pattern", ("app.log", "app.log*"))
def test_of_what_is_written_during_copytruncate_all_that_is_left_arrives_and_nothing_twice(
    lab: Lab, pattern: str, kind: str
) -> None:
    """What is appended between copying and truncating is in no file any more. It may have been read in time."""
    program = Program(lab)
    consumer, producer = watched(lab, pattern)
    rotator = Rotator(lab, program, RULES["copytruncate"], pause=False)
    with program:
        for _ in range(ROTATIONS):
            pace(ROTATE_EVERY)
            trouble(lab, producer, kind, rotator.rotate)
    left = Counter(line for path in program.path.parent.iterdir() for line in whole_lines(path.read_bytes()))
    assert max(left.values()) == 1
    merged = Counter[bytes]()

    def missing() -> Counter[bytes]:
        nonlocal merged
        merged = Counter(whole_lines(consumer.merged.read_bytes()))
        return left - merged

    lab.wait_until(
        lambda: not missing(),
        "all lines that are in the file and its copies have come",
        explain=lambda: f"{len(missing())} are missing: {sorted(missing())[:3]}{mirrors(consumer)}",
    )
    again = [line for line, count in merged.items() if count > 1]
    assert not again, f"{len(again)} lines came twice: {sorted(again)[:3]}{mirrors(consumer)}"
    assert not merged - Counter(whole_lines(program.kept.read_bytes())), "nobody wrote other lines"


def whole_lines(text: bytes) -> list[bytes]:
    """Without the parts of lines that were cut: by their number and where it begins."""
    return [line[:10] for line in text.split(b"\n") if len(line) == LINE - 1 and line[:9].isdigit()]


def watched(lab: Lab, pattern: str, *flags: str) -> tuple[Consumer, Agent]:
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True, merged=True)
    producer = lab.producer(link.producers[0], *flags, globs=[lab.files_of("alpha") / pattern])
    return consumer, producer


@pytest.mark.parametrize("pattern", ("app.log", "app.log*"))
@pytest.mark.parametrize("how", ("create", "copytruncate"))
def test_what_is_compressed_at_once_was_read_or_is_held(lab: Lab, how: str, pattern: str) -> None:
    program = Program(lab)
    consumer, _ = watched(lab, pattern, "--exclude", "*.gz")
    rotator = Rotator(lab, program, f"  {how}\n  compress\n")
    with program:
        for _ in range(ROTATIONS):
            pace(ROTATE_EVERY)
            rotator.rotate()
    wait_each_line_once(lab, consumer, program)


@pytest.mark.parametrize("kind", TROUBLES)
@pytest.mark.parametrize("packing", ("nocompress", "compress"))
@pytest.mark.parametrize("how", ("create", "copytruncate"))
def test_files_moved_to_another_directory_are_found_there(lab: Lab, how: str, packing: str, kind: str) -> None:
    program = Program(lab)
    old = lab.root / "old"
    old.mkdir()
    consumer, producer = watched(lab, "app.log", "--rotated", f"{old}/*")
    rotator = Rotator(lab, program, f"  {how}\n  {packing}\n  olddir {old}\n")
    with program:
        for _ in range(ROTATIONS):
            pace(ROTATE_EVERY)
            trouble(lab, producer, kind, rotator.rotate if packing == "nocompress" else rotator.rotate_in_a_pause)
    wait_each_line_once(lab, consumer, program)


GZIP = "  compress\n"
ZSTD = "  compress\n  compresscmd /usr/bin/zstd\n  uncompresscmd /usr/bin/unzstd\n  compressext .zst\n  compressoptions --rm -q\n"
AT_ONCE = {
    "create gzip": "  create\n" + GZIP,
    "create zstd": "  create\n" + ZSTD,
    "copytruncate gzip": "  copytruncate\n" + GZIP,
    "dateext zstd": "  create\n  dateext\n  dateformat -%Y%m%d-%s\n" + ZSTD,
}
"""Compressed as soon as they are rotated, so that what was not read is in an archive."""

needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")


@needs_zstd
@pytest.mark.parametrize("kind", TROUBLES)
@pytest.mark.parametrize("pattern", ("app.log", "app.log*"))
@pytest.mark.parametrize("rules", AT_ONCE)
def test_what_is_compressed_at_once_arrives_once(lab: Lab, rules: str, pattern: str, kind: str) -> None:
    program = Program(lab)
    consumer, producer = watched(lab, pattern)
    rotator = Rotator(lab, program, AT_ONCE[rules])
    with program:
        for _ in range(ROTATIONS):
            pace(ROTATE_EVERY if "dateext" not in rules else 1.1)
            trouble(lab, producer, kind, rotator.rotate_in_a_pause)
    wait_each_line_once(lab, consumer, program)
    assert consumer.terminate() == 0, "no loss"


@needs_zstd
@pytest.mark.parametrize("pattern", ("app.log", "app.log*"))
@pytest.mark.parametrize("rules", AT_ONCE)
def test_what_a_producer_that_lags_has_not_read_is_taken_from_the_archives(lab: Lab, rules: str, pattern: str) -> None:
    program = Program(lab)
    program.write(4_000)
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True, merged=True)
    files = [lab.files_of("alpha") / pattern]
    producer = lab.producer(link.producers[0], "--rate", "2", globs=files)
    lab.wait_until(lambda: consumer.merged.exists() and consumer.merged.stat().st_size > 100_000, "it has begun")
    producer.kill9()
    rotator = Rotator(lab, program, AT_ONCE[rules])
    read = consumer.merged.stat().st_size
    rotator.rotate_in_a_pause()
    assert read < program.kept.stat().st_size
    if pattern == "app.log*":  # else nobody selected what is in the second one
        program.write(1_000)
        pace(1.1 if "dateext" in rules else 0)
        rotator.rotate_in_a_pause()
    producer.start()
    # Once more in the middle: it goes on in the archive.
    lab.wait_until(lambda: consumer.merged.stat().st_size > read + 100_000, "it goes on", deadline=30)
    producer.kill9()
    producer.start()
    program.write(10)
    wait_each_line_once(lab, consumer, program)
    # All that is in the archives was sent: it is not sent again, and nothing of it is held.
    assert producer.terminate() == 0
    found = producer.stderr().count("file found")
    producer.start()
    program.write(10)
    wait_each_line_once(lab, consumer, program)
    assert producer.stderr().count("file found") == found
    assert consumer.terminate() == 0, "no loss"
