"""A file that grows by 20 MB/s and is rotated every second, while the producer is stopped and killed: no byte lost or doubled."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fantail_lab import Consumer, Lab, pace
from fantail_sources import LogWriter, Source

BYTES_PER_SECOND = 20_000_000
SECONDS = float(os.environ.get("FANTAIL_ROTATION_SECONDS", "15"))
STOPPED_SECONDS = 5.0


def beside(source: Source, number: int) -> None:
    """Under a name that no pattern takes."""
    source.rotate(f"{source.path.name}.{number:03d}")


def to_a_name_that_is_taken(source: Source, number: int) -> None:
    source.rotate(f"rotated-{number:03d}.log")


def to_another_folder(source: Source, number: int) -> None:
    source.rotate(f"../old/app-{number:03d}.log")


def by_link_and_unlink(source: Source, number: int) -> None:
    """For a moment the file has both names."""
    os.link(source.path, source.path.with_name(f"{source.path.name}.{number:03d}"))
    source.delete()


KINDS: dict[str, Callable[[Source, int], None]] = {
    "renamed beside": beside,
    "renamed to a name that is taken": to_a_name_that_is_taken,
    "moved to another folder": to_another_folder,
    "linked and unlinked": by_link_and_unlink,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_rotation_every_second_loses_and_doubles_nothing(lab: Lab, kind: str) -> None:
    source = lab.source("live/app.log")
    (source.path.parent.parent / "old").mkdir()
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True, merged=True)
    # Which of several new names was the first one's nobody can know who was stopped meanwhile, unless all are taken.
    pattern = f"{lab.files_of('alpha')}/**/*.log" + ("*" if kind == "linked and unlinked" else "")
    producer = lab.producer(link.producers[0], globs=[pattern])

    with LogWriter(source, BYTES_PER_SECOND, rotate_every=1.0, rotate=KINDS[kind]):
        pace(SECONDS / 6)
        producer.freeze()
        pace(STOPPED_SECONDS)
        producer.thaw()
        for _ in range(2):
            pace(lab.rng.uniform(0.1, SECONDS / 5))
            producer.kill9()
            pace(lab.rng.uniform(0.0, 0.5))
            producer.start()
        pace(SECONDS / 6)

    assert len(source.incarnations) >= SECONDS / 2
    lab.wait_mirrored(consumer, deadline=120)
    wait_each_line_once(lab, consumer, source)


def wait_each_line_once(lab: Lab, consumer: Consumer, source: Source) -> None:
    """Every line that was written is in the merged file, none is there twice. By their numbers: there are millions."""
    written = sum(incarnation.size for incarnation in source.incarnations)
    lab.wait_until(lambda: consumer.merged.stat().st_size == written, f"all {written} bytes are merged", deadline=120)
    assert consumer.terminate() == 0
    seen = bytearray(written // 200)
    with Path(consumer.merged).open("rb") as merged:
        for line in merged:
            seen[int(line.split(b" ", 2)[1])] += 1
    assert set(seen) == {1}
