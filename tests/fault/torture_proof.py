"""The proof: every byte of every life is in each output once, or is listed as lost with a true reason.

What a consumer has is compared with what was written, stream by stream. A stream is one life: what it holds tells which.
Two kinds of complaints come out. What is *wrong* (a byte that nobody wrote there, a stream twice, an order that was not, a
loss that was none) never gets better. What is *missing* may be on its way.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from fantail_lab import Consumer
from torture_cluster import Cluster, Interval, TortureFailure
from torture_plan import NODES
from torture_world import KEY_BYTES, Life, World, is_taken, key_of

_TRUNCATED = "truncated or rewritten before it was delivered"
_DELETED = "deleted before it was delivered"
_START_SECONDS = 8.0
"""So long after its start a producer may still find that files are gone that were there while it was down."""

_LOOKS = 5
_PAUSE_SECONDS = 0.4

Range = tuple[int, int]


@dataclass
class Stream:
    """What one consumer has of one stream."""

    stream: str
    node: str
    path: Path
    file: Path
    sequence: int
    life: Life | None = None
    mirrored: int = 0  # bytes of the mirror that were compared
    lines_end: int = 0  # the end of what the merged file has
    lines_at_loss: bool = False
    mirror_losses: list[Range] = field(default_factory=list)
    line_losses: list[Range] = field(default_factory=list)
    losses: list[tuple[int, int, str]] = field(default_factory=list)

    def lost_upto(self) -> int:
        return max((end for _, end, _ in self.losses), default=0)


class Proof:
    """Of one consumer. Looks at what is new since the last time; `whole` looks at everything again."""

    def __init__(self, consumer: Consumer, world: World, cluster: Cluster, exposure: float) -> None:
        self._consumer = consumer
        self._world = world
        self._cluster = cluster
        self._exposure = exposure
        self._streams: dict[str, Stream] = {}
        self._merged_read = 0
        self._committed = 0
        self._delivered: dict[int, int] = defaultdict(int)  # of each life, what a check has found: never lost from then on
        self._keys: dict[bytes, int] = {}

    def whole(self) -> None:
        """Forgets what was looked at."""
        self._streams.clear()
        self._merged_read = 0

    def missing(self) -> list[str]:
        """Looks, and tells what is not there yet. Raises TortureFailure for what is wrong."""
        for _ in range(_LOOKS - 1):
            try:
                return self._look()
            except (TortureFailure, sqlite3.Error):
                # A mirror may have got another name since the store was read. What is really wrong stays wrong.
                self.whole()
                time.sleep(_PAUSE_SECONDS)
        return self._look()

    def _look(self) -> list[str]:
        self._read_store()
        self._identify()
        for stream in self._streams.values():
            self._compare_mirror(stream)
        self._compare_lines()
        self._judge_losses()
        return self._what_is_due()

    def settle(self) -> None:
        """All that is there now must stay: after a check without complaints."""
        for stream in self._streams.values():
            if stream.life is not None and stream.life.live:
                # A line without an end waits to be shown, and is not committed before it is.
                number, everywhere = stream.life.number, min(stream.mirrored, stream.lines_end)
                self._delivered[number] = max(self._delivered[number], everywhere)

    def lost_bytes(self) -> int:
        return sum(end - begin for s in self._streams.values() for begin, end, _ in s.losses)

    def count(self) -> int:
        return len(self._streams)

    # what the consumer says it has

    def _read_store(self) -> None:
        database = self._consumer.folder / "state" / "cursors.db"
        if not database.exists():
            return
        mirrors = self._consumer.mirror
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as store:
            rows = store.execute("SELECT stream, path, file, sequence FROM mirrors").fetchall()
            lost = store.execute("SELECT stream, start, stop, reason FROM losses").fetchall()
            merged = str(self._consumer.merged)
            lengths = store.execute("SELECT length FROM outputs WHERE path = ?", (merged,)).fetchall()
        self._committed = lengths[0][0] if lengths else 0
        for stream, path, file, sequence in rows:
            node, _, below = path.partition("/")
            known = self._streams.setdefault(stream, Stream(stream, node, Path("/" + below), mirrors / file, sequence))
            known.file = mirrors / file
            known.losses, known.mirror_losses = [], []
        for stream, begin, end, reason in lost:
            if stream in self._streams:
                self._streams[stream].losses.append((begin, end, reason))
        listed = mirrors / ".losses.tsv"
        for line in listed.read_text().splitlines() if listed.exists() else ():
            _, stream, begin, end, _, _ = line.split("\t")
            if stream in self._streams:
                self._streams[stream].mirror_losses.append((int(begin), int(end)))

    # which stream is which life

    def _identify(self) -> None:
        """By the keys in what it holds; of a few bytes, or of none, by its path."""
        by_text: dict[int, list[Life]] = defaultdict(list)
        for life in self._world.lives:
            by_text[life.text.id].append(life)
            self._keys.setdefault(key_of(life.text.id).encode(), life.text.id)
        taken: dict[int, Stream] = {}
        unsure: list[Stream] = []
        for stream in sorted(self._streams.values(), key=lambda s: s.sequence):
            text = self._text_of(stream)
            if text is None:
                unsure.append(stream)
                continue
            candidates = [life for life in by_text[text] if life.node == stream.node]
            # A copy has the text of its original; where each was tells them apart.
            candidates.sort(key=lambda life: (stream.path not in life.all_names, life.copy))
            free = [life for life in candidates if life.number not in taken]
            if not free:
                other = taken[candidates[0].number].stream if candidates else "nobody"
                raise TortureFailure(f"{self._name(stream)}: its bytes are those of another stream, too: {other}")
            taken[free[0].number] = stream
            stream.life = free[0]
        # One with nothing in it fits any life: it takes what the others leave.
        for stream in sorted(unsure, key=lambda s: len(self._head(s)), reverse=True):
            stream.life = None
            data = self._head(stream)
            fits = [
                life
                for life in self._world.lives
                if life.number not in taken and life.node == stream.node and stream.path in life.all_names
                and life.size >= len(data) and all(a in (0, b) for a, b in zip(data, life.text.piece(0, len(data))))
            ]
            fits.sort(key=lambda life: abs(life.size - max(len(data), stream.lost_upto())))
            if fits:
                taken[fits[0].number] = stream
                stream.life = fits[0]
            elif data.strip(b"\0"):
                raise TortureFailure(f"{self._name(stream)}: it begins with {data!r}, which nobody wrote there")

    def _text_of(self, stream: Stream) -> int | None:
        data = self._head(stream)
        if len(data) >= KEY_BYTES and b"\0" not in data:
            return self._key(stream, data[:KEY_BYTES])
        if stream.file.exists() and stream.file.stat().st_size > 0:
            # The beginning is lost: the first whole line behind it says as much.
            rest = stream.file.read_bytes().lstrip(b"\0")
            newline = rest.find(b"\n")
            if 0 <= newline < len(rest) - KEY_BYTES and b"\0" not in rest[newline + 1 : newline + 1 + KEY_BYTES]:
                return self._key(stream, rest[newline + 1 : newline + 1 + KEY_BYTES])
        return None

    def _key(self, stream: Stream, key: bytes) -> int:
        if key not in self._keys:
            raise TortureFailure(f"{self._name(stream)}: a line begins with {key!r}, which nobody wrote")
        return self._keys[key]

    def _head(self, stream: Stream) -> bytes:
        if not stream.file.exists():
            return b""
        with stream.file.open("rb") as file:
            return file.read(KEY_BYTES)

    # comparing

    def _compare_mirror(self, stream: Stream) -> None:
        if not stream.file.exists() or stream.life is None:
            return
        begin = min([stream.mirrored, *(start for start, _ in stream.mirror_losses)])
        with stream.file.open("rb") as file:
            file.seek(begin)
            found = file.read()
        end = begin + len(found)
        life = stream.life
        if end > life.size:
            raise TortureFailure(f"{self._name(stream)}: it has {end} bytes, {self._life(life)} never had more than {life.size}")
        expected = bytearray(life.text.piece(begin, end))
        for start, stop in stream.mirror_losses:
            start, stop = max(start, begin), min(stop, end)
            # Zeros, or the right bytes: of a consumer that was killed between writing and committing them.
            for at in range(start - begin, stop - begin):
                if found[at] == 0:
                    expected[at] = 0
        if bytes(expected) != found:
            at = next(i for i, (a, b) in enumerate(zip(expected, found)) if a != b)
            raise TortureFailure(
                f"{self._name(stream)}: at byte {begin + at} it has {found[at : at + 60]!r}, "
                f"{self._life(life)} has {bytes(expected[at : at + 60])!r}"
            )
        stream.mirrored = end

    def _compare_lines(self) -> None:
        """The part of the merged file that is committed and new: the rest a restart may cut off again."""
        merged = self._consumer.merged
        if not merged.exists() or self._committed <= self._merged_read:
            return
        with merged.open("rb") as file:
            file.seek(self._merged_read)
            data = file.read(self._committed - self._merged_read)
        for line in data.splitlines():
            record = json.loads(line)
            stream = self._streams.get(record["stream"])
            if stream is None or stream.life is None:
                raise TortureFailure(f"merged file: a line of a stream without a mirror: {line[:200]!r}")
            self._compare_line(stream, record)
        self._merged_read = self._committed

    def _compare_line(self, stream: Stream, record: dict) -> None:
        life = stream.life
        assert life is not None
        if loss := record.get("loss"):
            begin, end = loss["from"], loss["to"]
            if not stream.lines_end - 1 <= begin <= stream.lines_end:
                raise TortureFailure(f"{self._name(stream)}: lines end at {stream.lines_end}, then {begin} to {end} are lost")
            stream.line_losses.append((begin, end))
            stream.lines_end, stream.lines_at_loss = end, True
            return
        offset, text = record["offset"], record["line"].encode()
        at_newline = stream.lines_at_loss and life.text.piece(stream.lines_end, stream.lines_end + 1) == b"\n"
        if offset != stream.lines_end:
            how = "again" if offset < stream.lines_end else "too early"
            raise TortureFailure(f"{self._name(stream)}: the line at {offset} comes {how}, lines go to {stream.lines_end}")
        end = offset + len(text)
        if end > life.size or life.text.piece(offset, end) != text:
            raise TortureFailure(f"{self._name(stream)}: the line at {offset} is {text[:80]!r}, in {self._life(life)} it is not")
        if not text and not at_newline:
            raise TortureFailure(f"{self._name(stream)}: an empty line at {offset}")
        stream.lines_at_loss = False
        stream.lines_end = end + (end < life.size and life.text.piece(end, end + 1) == b"\n")

    # losses

    def _judge_losses(self) -> None:
        for stream in self._streams.values():
            for begin, end, reason in stream.losses:
                if begin >= end:
                    raise TortureFailure(f"{self._name(stream)}: a loss of nothing, {begin} to {end}")
                if stream.life is not None:
                    self._judge_loss(stream, stream.life, begin, end, reason)
            for begin, end in (*stream.mirror_losses, *stream.line_losses):
                if not _covers([(a, b) for a, b, _ in stream.losses], begin, end):
                    raise TortureFailure(f"{self._name(stream)}: an output shows {begin} to {end} as lost, the store does not")

    def _judge_loss(self, stream: Stream, life: Life, begin: int, end: int, reason: str) -> None:
        what = f"{self._name(stream)}: {begin} to {end} are told to be lost ({reason}), but {self._life(life)}"
        if end > life.size:
            raise TortureFailure(f"{what} never had more than {life.size} bytes")
        if life.live:
            raise TortureFailure(f"{what} is there")
        if begin < self._delivered[life.number]:
            raise TortureFailure(f"{what} had been delivered up to {self._delivered[life.number]}")
        truncated = life.ended_by == "truncated" or self._inode_used_again(life)
        # The stream may have gone on in a copy, and that was deleted.
        holders = [life, *(o for o in self._world.lives if o.text.id == life.text.id and self._may_go_on_in(o, begin))]
        deleted = any(
            (o.ended_by != "truncated" or self._file_went_unseen(o)) and self._was_let_go(o) for o in holders
        )
        true = {_TRUNCATED: truncated, _DELETED: deleted}
        if not true.get(reason, False):
            raise TortureFailure(f"{what} was {life.ended_by}; its producer was down at {self._cluster.down[life.node]}")

    def _was_let_go(self, life: Life) -> bool:
        """Whether the producer was not there to hold it when, or at some time after, it lost its name."""
        assert life.ended_at is not None
        return any(i.end is None or i.end + _START_SECONDS >= life.ended_at for i in self._cluster.down[life.node])

    def _may_go_on_in(self, copy: Life, begin: int) -> bool:
        """Whether a stream that was read up to there can have gone on in that copy, until it was gone: its producer has
        seen it, and there was more in it."""
        if not copy.copy or copy.live or copy.size <= begin or not copy.marks:
            return False
        return any(_overlap(copy.marks[0].at, copy.ended_at, interval) > 0 for interval in self._cluster.in_sight[copy.node])

    def _file_went_unseen(self, life: Life) -> bool:
        """Whether its file was truncated, and then deleted or moved out, while the producer was not there: all that it can
        tell is that the file is gone."""
        assert life.ended_at is not None
        went = [o.ended_at for o in self._world.lives if o.inode == life.inode and o.number > life.number and o.ended_by != "truncated"]
        return any(
            interval.begin <= life.ended_at and (interval.end is None or at <= interval.end + _START_SECONDS)
            for interval in self._cluster.down[life.node]
            for at in went
            if at is not None
        )

    def _inode_used_again(self, life: Life) -> bool:
        return any(o.inode == life.inode and o.number > life.number for o in self._world.lives)

    # what has to be there

    def _what_is_due(self) -> list[str]:
        of: dict[int, list[Stream]] = defaultdict(list)
        for stream in self._streams.values():
            if stream.life is not None:
                of[stream.life.number].append(stream)
                if stream.life.copy:  # what a copy has, its original need not have, and the other way round
                    of[stream.life.text.id].append(stream)
        out = []
        for life in self._world.lives:
            due = max(self._delivered[life.number], self.due(life))
            streams = of[life.number] or (of[life.text.id] if life.copy else [])
            if due == 0 or any(self._has(stream, life, due) for stream in streams):
                continue
            has = ", ".join(f"mirror {s.mirrored}, lines {s.lines_end}, lost {s.losses}" for s in streams) or "no stream"
            out.append(f"{self._consumer.name}: {due} of {life.size} bytes of {self._life(life)} are due: {has}")
        return out

    def _has(self, stream: Stream, life: Life, due: int) -> bool:
        lines = life.text.whole_lines(due)
        return max(stream.mirrored, stream.lost_upto()) >= due and stream.lines_end >= lines

    def due(self, life: Life) -> int:
        """Up to where its producer must know it: what was there, under a name that it looks at, for long enough."""
        known = self._exposed(life, life.untaken_since)
        if life.live:
            return life.size if known or life.untaken_since is None else 0
        return self._exposed(life, life.ended_at) if known else 0

    def _exposed(self, life: Life, until: float | None) -> int:
        exposed = 0
        for mark in life.marks:
            if any(_overlap(mark.at, until, interval) >= self._exposure for interval in self._cluster.in_sight[life.node]):
                exposed = max(exposed, mark.size)
        return exposed

    # words

    def _name(self, stream: Stream) -> str:
        return f"{self._consumer.name}: stream {stream.stream} ({stream.file})"

    def _life(self, life: Life) -> str:
        copy = f", a copy of {life.text.id}" if life.copy else ""
        return f"life {life.number} of {life.node} ({', '.join(map(str, sorted(life.all_names)))}{copy})"


def _overlap(begin: float, end: float | None, interval: Interval) -> float:
    """Seconds that [begin, end) and the interval have in common; without an end: as long as it takes."""
    ends = [e for e in (end, interval.end) if e is not None]
    return (min(ends) if ends else float("inf")) - max(begin, interval.begin)


def _covers(ranges: list[Range], begin: int, end: int) -> bool:
    at = begin
    for start, stop in sorted(ranges):
        if start <= at < stop:
            at = stop
    return at >= end
