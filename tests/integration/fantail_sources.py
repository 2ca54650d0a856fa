"""Source files as programs write them, and the comparison of what arrived with what was written.

A `Source` is one path. Every life of the file at that path is an `Incarnation`, and every byte written to it is written
to a kept copy as well, outside the tree that is tailed, so deleting or truncating the source costs the test nothing.
"""

from __future__ import annotations

import bisect
import hashlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

LINE_BYTES = 200
_TICK_SECONDS = 0.01
_LETTERS = bytes(random.Random(7).choices(b"abcdefghijklmnopqrstuvwxyz     ", k=4096)).decode()


class Incarnation:
    """One life of a source file; it can still be written to after it was renamed or deleted, as programs do."""

    def __init__(self, source_fd: int, kept: Path) -> None:
        self.kept = kept
        self._source_fd = source_fd
        self._kept_fd = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def append(self, data: bytes) -> None:
        self.keep(data)
        _write_all(self._source_fd, data)

    def keep(self, data: bytes) -> None:
        """Notes what somebody else writes to the source."""
        _write_all(self._kept_fd, data)

    @property
    def size(self) -> int:
        return os.fstat(self._kept_fd).st_size

    def close(self) -> None:
        os.close(self._kept_fd)
        os.close(self._source_fd)


class Source:
    """One path that a test writes, rotates, truncates, rewrites and deletes."""

    def __init__(self, path: Path, keep_in: Path, node: str) -> None:
        self.path = path
        self.node = node
        self.incarnations: list[Incarnation] = []
        self._keep_in = keep_in
        self._live = False
        self._next_number = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        keep_in.mkdir(parents=True, exist_ok=True)

    @property
    def current(self) -> Incarnation:
        """The file that is at the path now; created when there is none."""
        if not self._live:
            self._begin()
        return self.incarnations[-1]

    def append(self, data: bytes) -> None:
        self.current.append(data)

    def append_lines(self, count: int) -> bytes:
        """Appends lines that no other source and no other call writes."""
        data = self.numbered(count)
        self.append(data)
        return data

    def numbered(self, count: int) -> bytes:
        """The next lines, each with a number of its own, not written anywhere yet."""
        first = self._next_number
        self._next_number += count
        label = f"{self.node}/{self.path.name}"
        lines = []
        for number in range(first, first + count):
            start = f"{label} {number:010d} "
            shift = number * 31 % (len(_LETTERS) - LINE_BYTES)
            lines.append(start + _LETTERS[shift : shift + LINE_BYTES - len(start) - 1] + "\n")
        return "".join(lines).encode()

    def rotate(self, name: str) -> Incarnation:
        """Renames the file beside itself; the next append creates a new one. Returns the renamed file."""
        old = self.current
        self.path.rename(self.path.parent / name)
        self._live = False
        return old

    def delete(self) -> Incarnation:
        old = self.current
        self.path.unlink()
        self._live = False
        return old

    def replaced(self) -> Incarnation:
        """Somebody else has put another file at the path, or a link to one; the next append goes to that."""
        old = self.current
        self._live = False
        return old

    def truncate(self) -> None:
        """Cuts the file to nothing in place (same inode); appends go on at its start."""
        os.truncate(self.path, 0)
        self._begin()

    def rewrite(self, data: bytes) -> None:
        """Replaces the contents in place (same inode). A page at most, so that no reader meets a half-written mixture."""
        assert len(data) <= 4096, "longer in-place writes are not atomic for a reader"
        if len(data) < self.current.size:
            self.truncate()
        else:
            self._begin()
        self.current.keep(data)
        with open(self.path, "r+b", buffering=0) as in_place:
            assert in_place.write(data) == len(data)

    def text(self) -> bytes:
        """Every byte written to this path, incarnation after incarnation."""
        return b"".join(incarnation.kept.read_bytes() for incarnation in self.incarnations)

    def close(self) -> None:
        for incarnation in self.incarnations:
            incarnation.close()

    def _begin(self) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        number = len(self.incarnations)
        self.incarnations.append(Incarnation(fd, self._keep_in / f"{self.path.name}.{number:03d}"))
        self._live = True


def _rename_beside(source: Source, number: int) -> None:
    source.rotate(f"{source.path.name}.{number:03d}")


class LogWriter:
    """Appends numbered lines to one source at a steady rate from a thread, and rotates it now and then.

    Used as a context manager; what went wrong in the thread is raised where the block ends.
    """

    def __init__(
        self,
        source: Source,
        bytes_per_second: float,
        rotate_every: float | None = None,
        rotate: Callable[[Source, int], object] = _rename_beside,
    ) -> None:
        self._source = source
        self._rotate = rotate
        self._bytes_per_second = bytes_per_second
        self._rotate_every = rotate_every
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._written: list[int] = [0]
        self._written_at: list[float] = [time.monotonic()]
        self._thread = threading.Thread(target=self._guarded, name=f"writer of {source.path}", daemon=True)

    def __enter__(self) -> LogWriter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    @property
    def written(self) -> int:
        """Bytes written so far."""
        return self._written[-1]

    def behind(self, arrived: int) -> float:
        """How many seconds ago the first byte was written that a reader with `arrived` bytes does not have."""
        marks = len(self._written_at)
        index = bisect.bisect_right(self._written, arrived, hi=marks)
        return time.monotonic() - self._written_at[index] if index < marks else 0.0

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as failure:  # handed to the thread that owns the test
            self._failure = failure

    def _run(self) -> None:
        begin = time.monotonic()
        rotations = 0
        while not self._stopping.wait(_TICK_SECONDS):
            elapsed = time.monotonic() - begin
            due = int(elapsed * self._bytes_per_second) - self.written
            if due >= LINE_BYTES:
                self._source.append_lines(due // LINE_BYTES)
                self._written.append(self.written + due // LINE_BYTES * LINE_BYTES)
                self._written_at.append(time.monotonic())
            if self._rotate_every is not None and elapsed > (rotations + 1) * self._rotate_every:
                rotations += 1
                self._rotate(self._source, rotations)


def kept_files(sources: Iterable[Source]) -> list[Path]:
    """The kept copies of all incarnations that ever held a byte."""
    return [i.kept for source in sources for i in source.incarnations if i.size > 0]


def files_below(folder: Path) -> list[Path]:
    """All files that hold a byte. One that is renamed meanwhile raises FileNotFoundError; look again then."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 0)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, hashlib.blake2b).hexdigest()


def digest_tree(folder: Path) -> dict[str, str]:
    """Relative path -> digest of every file below a folder."""
    return {str(path.relative_to(folder)): digest(path) for path in files_below(folder)}


def same_files(left: Sequence[Path], right: Sequence[Path]) -> bool:
    """Whether both lists hold the same contents, each as often, under whatever names. Reads nothing while sizes differ."""
    if Counter(map(_size, left)) != Counter(map(_size, right)):
        return False
    return Counter(map(digest, left)) == Counter(map(digest, right))


def describe_difference(kept: Sequence[Path], mirrored: Sequence[Path]) -> str:
    """In words, which incarnations have no equal in the mirror and the other way round."""
    left = {path: digest(path) for path in kept}
    right = {path: digest(path) for path in mirrored}
    missing = [path for path, value in left.items() if value not in right.values()]
    extra = [path for path, value in right.items() if value not in left.values()]
    lines = [f"{len(left)} incarnations were written, {len(right)} are mirrored"]
    lines += [f"  written, not mirrored: {path} ({_size(path)} bytes)" for path in missing]
    lines += [f"  mirrored, not written: {path} ({_size(path)} bytes){_nearest(path, missing)}" for path in extra]
    return "\n".join(lines)


def line_difference(kept: Sequence[Path], merged: bytes) -> str:
    """Nothing when `merged` has every kept line exactly once and each incarnation's lines in order; else what is wrong."""
    positions: dict[bytes, int] = {}
    repeated: list[bytes] = []
    for position, line in enumerate(merged.splitlines(keepends=True)):
        if line in positions:
            repeated.append(line)
        positions[line] = position
    expected = [path.read_bytes().splitlines(keepends=True) for path in kept]
    missing = [line for lines in expected for line in lines if line not in positions]
    unknown = positions.keys() - {line for lines in expected for line in lines}
    if missing or repeated or unknown:
        return "\n".join(
            f"  {len(lines)} lines {how}, for example {[line[:60] for line in list(lines)[:3]]}"
            for how, lines in (("missing", missing), ("repeated", repeated), ("nobody wrote", unknown))
            if lines
        )
    for path, lines in zip(kept, expected):
        order = [positions[line] for line in lines]
        if order != sorted(order):
            return f"  the lines of {path} are not in order"
    return ""


def _nearest(path: Path, candidates: Sequence[Path]) -> str:
    data = path.read_bytes()
    equal = {c: len(os.path.commonprefix([data, c.read_bytes()])) for c in candidates}
    if not equal:
        return ""
    best = max(equal, key=lambda candidate: equal[candidate])
    return f", equal to {best} up to byte {equal[best]}"


def _size(path: Path) -> int:
    return path.stat().st_size


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
