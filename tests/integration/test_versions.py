"""Peers of other versions, and messages that are no good: refused with a sentence, counted, and without lasting harm."""

from __future__ import annotations

import re

import pytest

from fantail_lab import Agent, Lab
from fantail_meddler import Meddler, Parts, kind_of, with_major
from fantail_sources import files_below

OURS = 1
THEIRS = 2
CHUNK = 1
DAMAGED = 20


def refusals(agent: Agent) -> list[str]:
    """What it says of peers of another version: the lines that name both."""
    both = (f"version {OURS}", f"version {THEIRS}")
    return [line for line in agent.stderr().splitlines() if all(version in line for version in both)]


def counted(agent: Agent, what: str) -> int:
    """A number of its last log line."""
    found = re.findall(rf"\b{what}=(\d+)", agent.stderr())
    assert found, f"{agent.name} does not tell {what}:\n{agent.report()}"
    return int(found[-1])


@pytest.mark.parametrize("kind", ("tcp", "tcp-bind"))
def test_a_peer_of_another_major_version_is_refused_by_both(lab: Lab, kind: str) -> None:
    """Each side meets what seems to be a program of another major version, and says so; then one of its own."""
    lab.source().append_lines(100)
    meddler = Meddler(lambda parts: with_major(parts, THEIRS))
    with meddler.between(lab.link(kind), lab.ports) as link:
        consumer = lab.consumer(link.consumers[0], mirror=True)
        producer = lab.producer(link.producers[0])

        for agent in (producer, consumer):
            lab.wait_until(lambda: refusals(agent), f"{agent.name} refuses with a sentence that names both versions")
        assert files_below(consumer.mirror) == []

        meddler.change = lambda parts: parts
        lab.wait_mirrored(consumer)
        for agent in (producer, consumer):
            assert agent.terminate() == 0
            assert counted(agent, "refused_versions") > 0


def test_damaged_messages_are_refused_and_counted(lab: Lab) -> None:
    """The first chunks are damaged on their way: none of their bytes is written, and they are fetched."""
    source = lab.source()
    damaged: list[Parts] = []

    def damage(parts: Parts) -> Parts:
        if kind_of(parts) != CHUNK or len(damaged) == DAMAGED:
            return parts
        damaged.append(parts)
        at = lab.rng.randrange(len(parts[-1]))
        return [*parts[:-1], parts[-1][:at] + bytes([parts[-1][at] ^ 0x40]) + parts[-1][at + 1 :]]

    with Meddler(damage).between(lab.link("tcp"), lab.ports) as link:
        consumer = lab.consumer(link.consumers[0], mirror=True)
        lab.producer(link.producers[0], "--chunk", "4096")
        source.append_lines(5000)
        lab.wait_until(lambda: len(damaged) == DAMAGED, f"{DAMAGED} chunks were damaged")
        lab.wait_until(lambda: "rejected messages" in consumer.stderr(), "the consumer tells of it")
        lab.wait_mirrored(consumer)
        assert consumer.terminate() == 0

    assert 0 < counted(consumer, "rejected") <= DAMAGED
    lab.assert_mirrored(consumer)
