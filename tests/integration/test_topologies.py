"""Many to many, one flag apart: tcp with either side binding, ipc, and epgm over loopback."""

from __future__ import annotations

import contextlib

import pytest

from fantail_lab import LOOPBACK, NODES, Lab, Place
from fantail_sources import LogWriter, digest_tree

KINDS = ("tcp", "tcp-bind", "ipc", pytest.param("epgm", marks=pytest.mark.epgm))


@pytest.mark.parametrize("kind", KINDS)
def test_three_producers_and_two_consumers(lab: Lab, kind: str) -> None:
    """History and live lines of several files of each node, one of which rotates, reach both consumers whole."""
    link = lab.link(kind, [LOOPBACK] * 3, [LOOPBACK] * 2)
    for node in NODES:
        for name in ("a.log", "b.log"):
            lab.source(name, node).append_lines(5000)
    live = [lab.source("live.log", node) for node in NODES]
    producers, consumers = lab.party(link)

    with contextlib.ExitStack() as writing:
        for source in live:
            writing.enter_context(LogWriter(source, bytes_per_second=1_000_000, rotate_every=0.5))
        for consumer in consumers:
            for source in live:
                lab.wait_flow(consumer, source)

    lab.wait_mirrored(*consumers)
    lab.wait_merged(*consumers)


@pytest.mark.parametrize("kind", KINDS)
def test_a_late_joiner_gets_everything_from_the_beginning(lab: Lab, kind: str) -> None:
    link = lab.link(kind, [LOOPBACK] * 2, [LOOPBACK] * 2)
    sources = [lab.source(node=node) for node in NODES[:2]]
    _, (early, late) = lab.party(link, start_consumers=1)
    for source in sources:
        source.append_lines(5000)
    lab.wait_mirrored(early)

    with LogWriter(sources[0], bytes_per_second=1_000_000):
        late.start()
        lab.wait_flow(late, sources[0])

    lab.wait_mirrored(early, late)
    lab.wait_merged(early, late)


@pytest.mark.epgm
def test_another_transport_changes_no_byte_of_the_output(lab: Lab) -> None:
    """Only the flags that name the transport differ; the trees of the mirrors and the sorted lines are equal."""
    rotated = lab.source("rotated.log")
    rotated.append_lines(2000)
    rotated.rotate("rotated.log.1")
    rotated.append_lines(1000)
    lab.source("data.bin").append(lab.rng.randbytes(1_000_000) + b"\n")

    trees, lines = [], []
    for kind in ("tcp", "epgm"):
        link = lab.link(kind)
        consumer = lab.consumer(link.consumers[0], name=kind, mirror=True, merged=True)
        assert lab.producer(link.producers[0], "--once").wait_exit() == 0
        assert consumer.terminate() == 0
        lab.assert_mirrored(consumer)
        trees.append(digest_tree(consumer.mirror))
        lines.append(sorted(consumer.merged_lines()))

    assert trees[0] == trees[1]
    assert lines[0] == lines[1]


@pytest.mark.epgm
def test_nodes_with_one_interface_named_differently_meet(lab: Lab) -> None:
    """An interface may be given by name or by address."""
    lab.source().append_lines(1000)
    link = lab.link("epgm", consumers=[Place("127.0.0.1", "lo")])
    consumer = lab.consumer(link.consumers[0], mirror=True)
    lab.producer(link.producers[0])

    lab.wait_mirrored(consumer)
