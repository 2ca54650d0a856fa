"""Bad networks and stuck receivers, on hosts in network namespaces: two producers, two consumers, one outsider.

After each disturbance data flows again within three seconds, and at the end nothing is missing.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from fantail_lab import Agent, Consumer, Lab, Link, Place, least_of_tries, pace
from fantail_netlab import Netlab
from fantail_sources import LogWriter, Source

pytestmark = [pytest.mark.netns, pytest.mark.slow]

TRANSPORTS = ("tcp", pytest.param("epgm", marks=pytest.mark.epgm))
FLOWS_AGAIN_SECONDS = 3
LIVE_SECONDS = 1.0

_SEND_EMPTY_DATAGRAM = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[1]))
sender.sendto(b"", (sys.argv[2], int(sys.argv[3])))
"""


@dataclass
class Cluster:
    """Programs on hosts of their own, with one file per node."""

    link: Link
    producers: list[Agent]
    consumers: list[Consumer]
    sources: list[Source]
    outsider: Place

    def host_of(self, consumer: Consumer) -> Place:
        return self.link.consumers[self.consumers.index(consumer)].place


def start_cluster(lab: Lab, netlab: Netlab, kind: str) -> Cluster:
    hosts = netlab.up(5)
    link = lab.link(kind, hosts[:2], hosts[2:4])
    sources = [lab.source(node=node) for node in ("alpha", "beta")]
    producers, consumers = lab.party(link)
    return Cluster(link, producers, consumers, sources, hosts[4])


@contextlib.contextmanager
def lines_flowing(lab: Lab, cluster: Cluster, bytes_per_second: float = 500_000) -> Iterator[None]:
    """All sources are written to, and everything arrives, before the block begins; the writers end with the block."""
    with contextlib.ExitStack() as writing:
        for source in cluster.sources:
            writing.enter_context(LogWriter(source, bytes_per_second))
        for consumer in cluster.consumers:
            wait_all_flow(lab, cluster, consumer)
        yield


def wait_all_flow(lab: Lab, cluster: Cluster, consumer: Consumer) -> None:
    for source in cluster.sources:
        lab.wait_flow(consumer, source)


def wait_complete(lab: Lab, cluster: Cluster) -> None:
    lab.wait_mirrored(*cluster.consumers)
    lab.wait_merged(*cluster.consumers)


@pytest.mark.parametrize("percent", (5, 20))
@pytest.mark.parametrize("kind", TRANSPORTS)
def test_packet_loss_loses_no_byte(lab: Lab, netlab: Netlab, kind: str, percent: int) -> None:
    cluster = start_cluster(lab, netlab, kind)
    netlab.lose(cluster.host_of(cluster.consumers[0]), percent)

    with lines_flowing(lab, cluster, bytes_per_second=1_000_000):
        pace(2)

    wait_complete(lab, cluster)


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_a_partition_of_ten_seconds(lab: Lab, netlab: Netlab, kind: str) -> None:
    cluster = start_cluster(lab, netlab, kind)
    lonely, other = cluster.consumers

    def cut_and_heal() -> float:
        netlab.cut(cluster.host_of(lonely))
        undisturbed = lab.time_until_flow(other, *cluster.sources)
        pace(10)
        both = (lonely, *cluster.producers)
        lab.wait_until(lambda: all("no sign of life" in side.stderr() for side in both), "both sides give the link up")
        netlab.heal(cluster.host_of(lonely))
        return max(undisturbed, lab.time_until_flow(lonely, *cluster.sources))

    with lines_flowing(lab, cluster):
        least_of_tries(cut_and_heal, FLOWS_AGAIN_SECONDS, "data flows to the other, and again after healing")

    wait_complete(lab, cluster)


@pytest.mark.epgm
def test_a_consumer_stopped_for_five_seconds_is_not_wedged(lab: Lab, netlab: Netlab) -> None:
    """libzmq's epgm subscriber does not recover from this by itself."""
    cluster = start_cluster(lab, netlab, "epgm")
    stopped = cluster.consumers[0]

    def freeze_and_thaw() -> float:
        stopped.freeze()
        pace(5)
        stopped.thaw()
        return lab.time_until_flow(stopped, *cluster.sources)

    with lines_flowing(lab, cluster, bytes_per_second=4_000_000):
        least_of_tries(freeze_and_thaw, FLOWS_AGAIN_SECONDS, "data flows again")

    wait_complete(lab, cluster)


@pytest.mark.epgm
def test_an_empty_datagram_to_the_group_stops_nobody_for_long(lab: Lab, netlab: Netlab) -> None:
    """libzmq aborts the process that receives it, publisher or subscriber."""
    cluster = start_cluster(lab, netlab, "epgm")

    def attack() -> float:
        send_empty_datagram(cluster)
        return max(lab.time_until_flow(consumer, *cluster.sources) for consumer in cluster.consumers)

    programs = (*cluster.producers, *cluster.consumers)
    with lines_flowing(lab, cluster):
        for _ in range(2):
            least_of_tries(attack, FLOWS_AGAIN_SECONDS, "data flows again to both")
            # Without relays everything would be fetched.
            lab.wait_until(lambda: all(program.children() for program in programs), "each has a relay again")

    wait_complete(lab, cluster)


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_a_stopped_consumer_does_not_hold_up_the_other(lab: Lab, netlab: Netlab, kind: str) -> None:
    cluster = start_cluster(lab, netlab, kind)
    stopped, live = cluster.consumers
    watched, *_ = cluster.sources
    with LogWriter(watched, bytes_per_second=5_000_000) as writer:
        for consumer in cluster.consumers:
            lab.wait_flow(consumer, watched)

        def freeze_and_watch() -> float:
            stopped.freeze()
            behind = worst_lag(lab, live, writer, seconds=5)
            stopped.thaw()
            lab.wait_flow(stopped, watched)
            return behind

        least_of_tries(freeze_and_watch, LIVE_SECONDS, "the other stays close to live")

    wait_complete(lab, cluster)


def send_empty_datagram(cluster: Cluster) -> None:
    group, port = cluster.link.group
    place = cluster.outsider
    command = [*place.prefix, "/usr/bin/python3", "-c", _SEND_EMPTY_DATAGRAM, place.address, group, str(port)]
    subprocess.run(command, check=True, timeout=30)


def worst_lag(lab: Lab, consumer: Consumer, writer: LogWriter, seconds: float) -> float:
    """How far behind the only writer the consumer's merged file was at worst, in seconds."""
    worst = 0.0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        lab.assert_alive()
        worst = max(worst, writer.behind(consumer.merged.stat().st_size))
        pace(0.02)
    return worst
