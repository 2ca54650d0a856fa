"""Calls that fail under state and outputs, as on a broken or full disk: nothing is claimed that is not so, nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from pathlib import Path

import pytest

from fantail_faults import FailingCalls, shim_of
from fantail_lab import Agent, Consumer, Lab


@pytest.fixture
def pair(lab: Lab) -> tuple[Agent, Consumer]:
    """Not started yet."""
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], "--sync", "0.1", mirror=True, merged=True, start=False)
    return lab.producer(link.producers[0], start=False), consumer


def committed(consumer: Consumer) -> int:
    """Bytes of the merged file of which the consumer has noted that they are durable."""
    with contextlib.closing(sqlite3.connect(f"file:{consumer.folder}/state/cursors.db?mode=ro", uri=True)) as store:
        return sum(length for (length,) in store.execute("SELECT length FROM outputs"))


def failing(agent: Agent, bin_dir: Path) -> FailingCalls:
    return FailingCalls(agent, shim_of(bin_dir), agent.folder.with_name(f"{agent.name}.control"))


@pytest.mark.parametrize("when", ("before the first commit", "after it"))
def test_after_a_failed_fsync_the_consumer_ends_and_a_restart_loses_nothing(
    lab: Lab, pair: tuple[Agent, Consumer], bin_dir: Path, when: str
) -> None:
    """What the kernel could not write it may have dropped, so going on would be a lie. New names are made durable with all
    of the file system, later on file by file."""
    producer, consumer = pair
    calls = failing(consumer, bin_dir)
    source = lab.source()
    source.append_lines(1000)
    producer.start()
    consumer.start()
    lab.wait_mirrored(consumer)
    if when == "after it":
        lab.wait_until(lambda: committed(consumer) == len(source.text()), "all of it is committed")

    calls.fail({"sync": errno.EIO})
    source.append_lines(1000)

    assert consumer.wait_exit() == 1
    assert "cannot make output durable" in consumer.stderr()
    calls.heal()
    consumer.start()
    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


@pytest.mark.parametrize("number", (errno.ENOSPC, errno.EIO), ids=errno.errorcode.get)
def test_a_consumer_whose_writes_fail_waits_and_goes_on(
    lab: Lab, pair: tuple[Agent, Consumer], bin_dir: Path, number: int
) -> None:
    producer, consumer = pair
    calls = failing(consumer, bin_dir)
    source = lab.source()
    source.append_lines(1000)
    producer.start()
    consumer.start()
    lab.wait_mirrored(consumer)

    calls.fail({"write": number})
    source.append_lines(1000)
    lab.wait_until(lambda: "cannot write" in consumer.stderr(), "the consumer says so")
    calls.heal()

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)
    assert consumer.terminate() == 0


@pytest.mark.parametrize(
    "call, number", (("write", errno.ENOSPC), ("write", errno.EIO), ("sync", errno.EIO)), ids=("ENOSPC", "EIO", "sync")
)
def test_new_files_wait_while_the_registry_cannot_be_written(
    lab: Lab, pair: tuple[Agent, Consumer], bin_dir: Path, call: str, number: int
) -> None:
    """Known ones go on meanwhile. Written is not enough: after a power loss only what is synced is there."""
    producer, consumer = pair
    calls = failing(producer, bin_dir)
    known, new = lab.source("known.log"), lab.source("new.log")
    known.append_lines(10)
    producer.start()
    consumer.start()
    lab.wait_mirrored(consumer)

    calls.fail({call: number})
    new.append_lines(10)
    lab.wait_until(lambda: "cannot record new files" in producer.stderr(), "the producer says so")
    known.append_lines(10)
    lab.wait_until(lambda: consumer.mirrored(known).read_bytes() == known.text(), "the known file goes on")
    assert not consumer.mirrored(new).exists()
    calls.heal()

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)
    assert producer.terminate() == 0
