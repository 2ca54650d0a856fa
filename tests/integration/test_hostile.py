"""Random datagrams and random ZeroMQ messages to every port: nobody dies, and the data is intact."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import zmq

from fantail_lab import Lab, Link
from fantail_sources import LogWriter

pytestmark = pytest.mark.slow

COUNT = 100_000
_FLUSH_MILLISECONDS = 10_000


@contextmanager
def attacking(kind: int, address: str) -> Iterator[zmq.Socket[bytes]]:
    """A connected socket that sends everything it was given before the block ends."""
    with zmq.Context() as context, context.socket(kind) as attacker:
        attacker.setsockopt(zmq.SNDHWM, 0)
        attacker.setsockopt(zmq.LINGER, _FLUSH_MILLISECONDS)
        attacker.connect(address)
        yield attacker


def random_frames(rng: random.Random, most: int = 5) -> list[bytes]:
    return [rng.randbytes(rng.choice((0, 1, 8, 16, 40, 200, 1000))) for _ in range(rng.randrange(1, most + 1))]


def to_data_of_the_consumer(link: Link, rng: random.Random) -> None:
    """As a publisher whose topics are those that the consumer asked for."""
    with attacking(zmq.XPUB, link.consumers[0].endpoint) as attacker:
        assert attacker.poll(10_000), "the consumer subscribes to something"
        wanted = [attacker.recv()[1:]]
        while attacker.poll(200):
            wanted.append(attacker.recv()[1:])
        for _ in range(COUNT):
            topic, *rest = random_frames(rng)
            attacker.send_multipart([rng.choice(wanted) + topic, *rest])


def to_control(address: str, rng: random.Random) -> None:
    with attacking(zmq.DEALER, address) as attacker:
        for _ in range(COUNT):
            attacker.send_multipart(random_frames(rng))


def to_control_of_the_consumer(link: Link, rng: random.Random) -> None:
    to_control(link.consumers[0].control, rng)


def to_control_of_the_producer(link: Link, rng: random.Random) -> None:
    to_control(link.producers[0].control, rng)


def to_data_of_the_producer(link: Link, rng: random.Random) -> None:
    """As a subscriber, to whose subscriptions a publisher listens."""
    with attacking(zmq.XSUB, link.producers[0].endpoint) as attacker:
        for _ in range(COUNT):
            attacker.send(rng.choice((b"\0", b"\1", b"")) + rng.randbytes(rng.randrange(100)))


@pytest.mark.parametrize(
    "kind, attack",
    (
        ("tcp", to_data_of_the_consumer),
        ("tcp", to_control_of_the_consumer),
        ("tcp-bind", to_data_of_the_producer),
        ("tcp-bind", to_control_of_the_producer),
    ),
)
def test_random_messages_change_nothing(lab: Lab, kind: str, attack: Callable[[Link, random.Random], None]) -> None:
    source = lab.source()
    link = lab.link(kind)
    _, [consumer] = lab.party(link)

    with LogWriter(source, bytes_per_second=500_000):
        lab.wait_flow(consumer, source)
        attack(link, lab.rng)
        lab.wait_flow(consumer, source)

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


@pytest.mark.epgm
def test_random_datagrams_change_nothing(lab: Lab) -> None:
    source = lab.source()
    link = lab.link("epgm")
    _, [consumer] = lab.party(link)

    with LogWriter(source, bytes_per_second=500_000):
        lab.wait_flow(consumer, source)
        send_random_datagrams(link, lab.rng)
        lab.wait_flow(consumer, source)

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


def send_random_datagrams(link: Link, rng: random.Random) -> None:
    """To the group and to the port itself."""
    group, port = link.group
    targets = ((group, port), ("127.0.0.1", port))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        for _ in range(COUNT):
            sender.sendto(rng.randbytes(rng.randrange(1, 1400)), rng.choice(targets))
