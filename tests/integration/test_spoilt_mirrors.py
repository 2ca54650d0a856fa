"""Somebody changes mirrors while the consumer runs: they are completed from the source, and that is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fantail_lab import Consumer, Lab


def _cut(mirror: Path, _: Consumer) -> None:
    with mirror.open("r+b") as file:
        file.truncate(100)


def _delete(mirror: Path, _: Consumer) -> None:
    mirror.unlink()


def _move(mirror: Path, _: Consumer) -> None:
    mirror.rename(mirror.with_name("moved away"))


def _replace(mirror: Path, _: Consumer) -> None:
    other = mirror.with_name("other")
    other.write_bytes(b"edited\n")
    other.rename(mirror)


def _remove_all(_: Path, consumer: Consumer) -> None:
    shutil.rmtree(consumer.mirror)


@pytest.mark.parametrize("spoil", [_cut, _delete, _move, _replace, _remove_all])
def test_a_mirror_that_somebody_changed_is_completed_and_told(
    lab: Lab, spoil: Callable[[Path, Consumer], None]
) -> None:
    source = lab.source()
    source.append_lines(5_000)
    _, consumer = lab.pair()
    lab.wait_mirrored(consumer)
    mirror = consumer.mirrored(source)

    spoil(mirror, consumer)
    source.append_lines(10)

    def complete() -> bool:
        return mirror.exists() and mirror.read_bytes() == source.path.read_bytes()

    lab.wait_until(complete, f"{mirror} is what {source.path} is")
    assert "somebody changed a mirror" in consumer.stderr()


def test_a_replaced_mirror_is_kept_aside(lab: Lab) -> None:
    source = lab.source()
    source.append_lines(10)
    _, consumer = lab.pair()
    lab.wait_mirrored(consumer)

    _replace(consumer.mirrored(source), consumer)
    source.append_lines(10)

    def aside() -> bool:
        return [path.read_bytes()[:7] for path in consumer.older(source)] == [b"edited\n"]

    lab.wait_until(aside, "the other file has another name")
