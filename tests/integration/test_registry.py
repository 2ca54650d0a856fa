"""A producer that lost its registry asks consumers what they know: every stream goes on, nothing is lost or sent twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from fantail_lab import LOOPBACK, Agent, Consumer, Lab

LINES = 1000
"""More than 4 KiB of them: the whole beginning of a file is known."""


# --- ways to lose a registry -------------------------------------------------------------------------------------------


def overwrite(lab: Lab, database: Path) -> None:
    database.write_bytes(lab.rng.randbytes(database.stat().st_size))


def truncate(lab: Lab, database: Path) -> None:
    with database.open("r+b") as file:
        file.truncate(lab.rng.choice((0, 1, database.stat().st_size // 2)))


def delete(_: Lab, database: Path) -> None:
    database.unlink()


Damage = Callable[[Lab, Path], None]
DAMAGES: tuple[Damage, ...] = (overwrite, truncate, delete)
any_damage = pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)


def state_of(producer: Agent) -> Path:
    return producer.folder / "state"


def stop_and_lose(lab: Lab, producer: Agent, damage: Damage) -> None:
    assert producer.terminate() == 0
    damage(lab, state_of(producer) / "registry.db")


def wait_rebuilt(lab: Lab, producer: Agent) -> str:
    """The line that tells so."""

    def told() -> list[str]:
        return [line for line in producer.stderr().splitlines() if "the registry is rebuilt" in line]

    return lab.wait_until(told, "the registry is rebuilt")[-1]


def node_of(producer: Agent) -> str:
    return (state_of(producer) / "node").read_text().strip()


def committed(consumer: Consumer) -> int:
    """What the consumer keeps as its position, of all streams together, by the sink that is furthest behind."""
    with sqlite3.connect(f"file:{consumer.folder}/state/cursors.db?mode=ro", uri=True) as database:
        sums = database.execute("SELECT sum(position) FROM cursors GROUP BY sink").fetchall()
    return min((row[0] for row in sums), default=0)


# --- the tests ---------------------------------------------------------------------------------------------------------


@any_damage
@pytest.mark.parametrize("kind", ("tcp", "tcp-bind", pytest.param("epgm", marks=pytest.mark.epgm)))
def test_a_lost_registry_is_rebuilt(lab: Lab, kind: str, damage: Damage) -> None:
    """With files grown meanwhile, on every way that consumers can be reached."""
    grown, still = lab.source("grown.log"), lab.source("still.log")
    for source in (grown, still):
        source.append_lines(LINES)
    [producer], [consumer] = lab.party(lab.link(kind))
    lab.wait_mirrored(consumer)
    node = node_of(producer)
    stop_and_lose(lab, producer, damage)

    grown.append_lines(LINES)
    producer.start()

    told = wait_rebuilt(lab, producer)
    assert "recovered=2" in told and "new=0" in told, told
    grown.append_lines(LINES)
    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)
    assert node_of(producer) == node
    assert sorted(path.name for path in consumer.mirror.iterdir()) == ["alpha"], "one node, one folder"


@any_damage
def test_a_file_rotated_while_the_registry_was_lost_goes_on(lab: Lab, damage: Damage) -> None:
    """To a name that no pattern takes."""
    source = lab.source()
    source.append_lines(LINES)
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True, merged=True)
    producer = lab.producer(link.producers[0], globs=[source.path])
    lab.wait_mirrored(consumer)
    stop_and_lose(lab, producer, damage)

    source.append_lines(LINES)
    source.rotate("app.log.1")
    source.append_lines(LINES)
    producer.start()

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


@any_damage
def test_small_and_new_files_beside_those_that_are_known(lab: Lab, damage: Damage) -> None:
    """Also one that is truncated and one that is deleted meanwhile."""
    small, truncated, deleted = lab.source("small.log"), lab.source("truncated.log"), lab.source("deleted.log")
    for source in (small, truncated, deleted):
        source.append_lines(3)
    [producer], [consumer] = lab.party(lab.link("tcp"))
    lab.wait_mirrored(consumer)
    stop_and_lose(lab, producer, damage)

    small.append_lines(1)
    truncated.truncate()
    truncated.append_lines(1)
    deleted.delete()
    lab.source("new.log").append_lines(3)
    producer.start()

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


@any_damage
def test_two_consumers_at_different_cursors_both_go_on(lab: Lab, damage: Damage) -> None:
    """Nothing is left out for the one that is behind, nothing comes twice to the one that is ahead."""
    source = lab.source()
    source.append_lines(LINES)
    [producer], [behind, ahead] = lab.party(lab.link("tcp", consumers=(LOOPBACK, LOOPBACK)))
    lab.wait_mirrored(behind, ahead)
    lab.wait_until(lambda: committed(behind) == source.current.size, "the first lines are committed")
    behind.kill9()
    source.append_lines(LINES)
    lab.wait_mirrored(ahead)
    lab.wait_until(lambda: committed(ahead) == source.current.size, "the second lines are committed by one")
    stop_and_lose(lab, producer, damage)

    source.append_lines(LINES)
    behind.start()
    producer.start()

    told = wait_rebuilt(lab, producer)
    assert "recovered=1" in told and "consumers=2" in told, told
    lab.wait_mirrored(behind, ahead)
    lab.wait_merged(behind, ahead)


@any_damage
def test_a_consumer_that_starts_later_is_waited_for(lab: Lab, damage: Damage) -> None:
    source = lab.source()
    source.append_lines(LINES)
    [producer], [consumer] = lab.party(lab.link("tcp"))
    lab.wait_mirrored(consumer)
    assert consumer.terminate() == 0
    stop_and_lose(lab, producer, damage)

    source.append_lines(LINES)
    producer.start()
    lab.wait_until(lambda: "rebuilding the registry" in producer.stderr(), "the producer says what it waits for")
    consumer.start()

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


def test_a_producer_killed_while_it_waits_still_waits_afterwards(lab: Lab) -> None:
    source = lab.source()
    source.append_lines(LINES)
    [producer], [consumer] = lab.party(lab.link("tcp"))
    lab.wait_mirrored(consumer)
    assert consumer.terminate() == 0
    stop_and_lose(lab, producer, delete)
    producer.start()
    lab.wait_until(lambda: "rebuilding the registry" in producer.stderr(), "the producer says what it waits for")
    producer.kill9()

    producer.start()
    consumer.start()

    wait_rebuilt(lab, producer)
    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


@pytest.mark.slow
def test_without_a_durable_consumer_it_starts_anew_after_a_while(lab: Lab) -> None:
    source = lab.source()
    first = source.append_lines(10)
    link = lab.link("tcp")
    viewer = lab.consumer(link.consumers[0], name="viewer", durable=False)
    producer = lab.producer(link.producers[0])
    lab.wait_until(lambda: viewer.stdout() == first, "the lines arrive")
    stop_and_lose(lab, producer, delete)
    viewer.terminate()
    viewer.start()

    producer.start()

    told = wait_rebuilt(lab, producer)
    assert "recovered=0" in told and "new=1" in told, told
    lab.wait_until(lambda: viewer.stdout() == first * 2, "the lines arrive again")


def test_a_lost_node_id_comes_back_from_the_registry(lab: Lab) -> None:
    source = lab.source()
    source.append_lines(LINES)
    [producer], [consumer] = lab.party(lab.link("tcp"))
    lab.wait_mirrored(consumer)
    node = node_of(producer)
    assert producer.terminate() == 0
    (state_of(producer) / "node").unlink()

    source.append_lines(LINES)
    producer.start()

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)
    assert node_of(producer) == node


def test_without_registry_and_node_id_it_is_a_new_node_and_says_so(lab: Lab) -> None:
    source = lab.source()
    source.append_lines(LINES)
    [producer], [consumer] = lab.party(lab.link("tcp"))
    lab.wait_mirrored(consumer)
    node = node_of(producer)
    stop_and_lose(lab, producer, overwrite)
    (state_of(producer) / "node").unlink()

    producer.start()

    lab.wait_until(lambda: "no node id is left" in producer.stderr(), "the new node is told")
    second = consumer.mirror / f"alpha~{node_of(producer)[:8]}"
    lab.wait_until(
        lambda: (second / str(source.path).lstrip("/")).read_bytes() == source.text(), "the new node has a mirror too"
    )
    assert consumer.mirrored(source).read_bytes() == source.text()
    assert node_of(producer) != node
