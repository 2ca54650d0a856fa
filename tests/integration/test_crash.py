"""kill -9 and restarts: every incarnation is mirrored byte for byte and every line is in the file sink exactly once."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Sequence

import pytest

from fantail_lab import Agent, Lab, least_of_tries, pace
from fantail_sources import LogWriter

BYTES_PER_SECOND = 20_000_000
WRITING_SECONDS = 3.5
FLOWS_AGAIN_SECONDS = 3
SEEDS = [int(os.environ["FANTAIL_SEED"])] if "FANTAIL_SEED" in os.environ else range(1, 21)


def transport_of(seed: int) -> str:
    """Every fourth seed is for multicast."""
    return "epgm" if seed % 4 == 0 else "tcp"


def kill_now_and_then(lab: Lab, agents: Sequence[Agent], seconds: float) -> None:
    """Kills one of them or all at random moments and starts them again a little later."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        pace(min(left, lab.rng.uniform(0.1, 0.9)))
        victims = lab.rng.choice([*([agent] for agent in agents), agents])
        for victim in victims:
            victim.kill9()
        pace(lab.rng.uniform(0.0, 0.4))
        for victim in victims:
            victim.start()


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=pytest.mark.epgm if transport_of(seed) == "epgm" else ()) for seed in SEEDS]
)
def test_kills_at_random_moments_lose_and_repeat_nothing(lab: Lab, seed: int) -> None:
    source = lab.source()
    producers, consumers = lab.party(lab.link(transport_of(seed)))

    with LogWriter(source, BYTES_PER_SECOND, rotate_every=lab.rng.uniform(0.6, 1.4)):
        kill_now_and_then(lab, [*producers, *consumers], WRITING_SECONDS)

    lab.wait_mirrored(*consumers)
    lab.wait_merged(*consumers)


@pytest.mark.parametrize("who", ("producer", "consumer", "both"))
@pytest.mark.parametrize("kind", ("tcp", "tcp-bind", "ipc", pytest.param("epgm", marks=pytest.mark.epgm)))
def test_a_restart_continues_where_it_was(lab: Lab, kind: str, who: str) -> None:
    """Ended politely, with lines written before, meanwhile and afterwards."""
    source = lab.source()
    [producer], [consumer] = lab.party(lab.link(kind))
    source.append_lines(2000)
    lab.wait_mirrored(consumer)
    victims = {"producer": [producer], "consumer": [consumer], "both": [producer, consumer]}[who]
    for victim in victims:
        assert victim.terminate() == 0

    source.append_lines(2000)
    for victim in victims:
        victim.start()
    lab.wait_mirrored(consumer)
    source.append_lines(2000)

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)
    assert consumer.terminate() == 0
    delivered = re.findall(r"consumer ended bytes=(\d+)", consumer.stderr())
    assert sum(map(int, delivered)) == source.path.stat().st_size, "nothing is repeated"


@pytest.mark.parametrize("pattern", ("app.log", "app.log*"))
def test_a_rotation_while_the_producer_is_down_loses_nothing(lab: Lab, pattern: str) -> None:
    source = lab.source()
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True, merged=True)
    producer = lab.producer(link.producers[0], globs=[source.path.with_name(pattern)])
    source.append_lines(1000)
    lab.wait_mirrored(consumer)
    producer.kill9()

    source.append_lines(1000)
    source.rotate("app.log.1")
    source.append_lines(1000)
    producer.start()

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


def test_a_backlog_interrupted_by_kills_arrives_once(lab: Lab) -> None:
    """Both die again and again while 60 MB of history are on their way."""
    for name in ("a.log", "b.log", "c.log"):
        lab.source(name).append_lines(100_000)
    producers, consumers = lab.party(lab.link("tcp"))

    kill_now_and_then(lab, [*producers, *consumers], seconds=1.5)

    lab.wait_mirrored(*consumers)
    lab.wait_merged(*consumers)


@pytest.mark.epgm
@pytest.mark.parametrize("who", ("producer", "consumer"))
def test_nothing_outlives_a_killed_program(lab: Lab, who: str) -> None:
    """On epgm a program has a child process; when the program is killed, its child ends too."""
    lab.source().append_lines(10)
    [producer], [consumer] = lab.party(lab.link("epgm"))
    lab.wait_mirrored(consumer)
    victim = producer if who == "producer" else consumer
    assert victim.children()

    victim.kill9()

    victim.wait_children_gone()


@pytest.mark.epgm
@pytest.mark.parametrize("who", ("producer", "consumer"))
def test_a_killed_relay_is_replaced(lab: Lab, who: str) -> None:
    """The program goes on, and data flows again within 3 s."""
    source = lab.source()
    [producer], [consumer] = lab.party(lab.link("epgm"))
    victim = producer if who == "producer" else consumer

    def kill_relay() -> float:
        lab.wait_until(victim.children, f"{victim.name} has a relay")
        victim.kill9_children()
        return lab.time_until_flow(consumer, source)

    with LogWriter(source, bytes_per_second=1_000_000):
        lab.wait_flow(consumer, source)
        least_of_tries(kill_relay, FLOWS_AGAIN_SECONDS, "data flows again")
        lab.wait_until(victim.children, "it has another one")  # without it everything would be fetched

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


@pytest.mark.epgm
def test_a_relay_that_stands_still_is_replaced(lab: Lab) -> None:
    """As libzmq's subscriber does after some losses: control links tell that nodes send, and nothing arrives."""
    source = lab.source()
    _, [consumer] = lab.party(lab.link("epgm"))
    with LogWriter(source, bytes_per_second=1_000_000):
        lab.wait_flow(consumer, source)
        [relay] = consumer.children()
        os.kill(relay, signal.SIGSTOP)
        lab.wait_until(lambda: consumer.children() not in ([], [relay]), "it has another one")

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)
