"""--delete-after-commit: a file goes when every durable consumer has it, never before, and never another file."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from fantail_lab import LOOPBACK, Agent, Consumer, Lab, pace

DELETED = "file deleted after its commit"


def lines(count: int, word: str = "line") -> bytes:
    return b"".join(b"%s %d\n" % (word.encode(), n) for n in range(count))


def mirrored(consumer: Consumer, path: Path) -> Path:
    return consumer.mirror / "alpha" / str(path).lstrip("/")


def wait_mirror(lab: Lab, consumer: Consumer, path: Path, content: bytes) -> None:
    lab.wait_until(lambda: mirrored(consumer, path).read_bytes() == content, f"{consumer.name} mirrors {path}")


def wait_gone(lab: Lab, producer: Agent, path: Path) -> None:
    lab.wait_until(lambda: not path.exists() and DELETED in producer.stderr(), f"{path} is deleted", explain=producer.report)


def test_a_file_that_is_committed_is_deleted_and_its_name_is_free_for_another(lab: Lab) -> None:
    path = lab.files_of("alpha") / "job.log"
    path.write_bytes(lines(1000))
    producer, consumer = lab.pair("--delete-after-commit")
    wait_gone(lab, producer, path)
    assert mirrored(consumer, path).read_bytes() == lines(1000)

    path.write_bytes(lines(10, "second"))

    lab.wait_until(lambda: producer.stderr().count(DELETED) == 2, "the second is deleted, too", explain=producer.report)
    assert mirrored(consumer, path).read_bytes() == lines(10, "second")
    assert not list(path.parent.iterdir()), "nothing is left"
    assert producer.terminate() == 0
    assert consumer.terminate() == 0


def test_archives_are_deleted_too(lab: Lab) -> None:
    """One that was found as such, and one that a rotated file was compressed to, which its stream goes on in."""
    folder = lab.files_of("alpha")
    found, live, rotated = folder / "old.log.gz", folder / "app.log", folder / "app.log.1.gz"
    found.write_bytes(gzip.compress(lines(50_000, "found")))
    producer, consumer = lab.pair("--delete-after-commit", "--delete-grace", "1")
    with live.open("wb") as program:  # as long as it is open for writing it stays
        program.write(lines(5000, "live"))
        program.flush()
        wait_gone(lab, producer, found)
        wait_mirror(lab, consumer, live, lines(5000, "live"))
        producer.terminate()
        program.write(lines(5000, "more"))
    rotated.write_bytes(gzip.compress(live.read_bytes()))
    live.unlink()

    producer.start()

    wait_mirror(lab, consumer, live, lines(5000, "live") + lines(5000, "more"))
    lab.wait_until(lambda: not rotated.exists(), "the archive is deleted", explain=producer.report)
    assert not list(folder.iterdir()), "nothing is left"
    assert mirrored(consumer, found).read_bytes() == lines(50_000, "found")
    assert [path.name for path in sorted(mirrored(consumer, live).parent.iterdir())] == ["app.log", "old.log.gz"]
    assert consumer.terminate() == 0, "nothing was lost"


def test_a_file_stays_while_one_of_two_consumers_is_away(lab: Lab) -> None:
    link = lab.link("tcp", consumers=[LOOPBACK] * 2)
    present = lab.consumer(link.consumers[0], name="one", mirror=True)
    away = lab.consumer(link.consumers[1], name="two", mirror=True)
    folder = lab.files_of("alpha")
    producer = lab.producer(link.producers[0], "--delete-after-commit")
    first, second = folder / "first.log", folder / "second.log"
    first.write_bytes(lines(10))
    wait_gone(lab, producer, first)
    away.kill9()

    second.write_bytes(lines(1000))
    wait_mirror(lab, present, second, lines(1000))
    pace(2.5)  # two sweeps after the commit of the one that is there
    assert second.exists()
    producer.kill9()
    producer.start()
    pace(2.5)
    assert second.exists(), "it knows of the other after a restart"
    away.start()

    lab.wait_until(lambda: not second.exists(), "both have it", explain=producer.report)
    for consumer in (present, away):
        wait_mirror(lab, consumer, second, lines(1000))
        assert consumer.terminate() == 0, "nothing was lost"


def test_kills_around_the_commit_lose_nothing(lab: Lab) -> None:
    folder = lab.files_of("alpha")
    producer, consumer = lab.pair("--delete-after-commit")
    for round_number in range(6):
        path = folder / f"{round_number}.log"
        content = lines(2000, f"round {round_number}")
        path.write_bytes(content)
        pace(lab.rng.uniform(0.0, 1.5))  # around the consumer's --sync
        victim = lab.rng.choice([producer, consumer])
        victim.kill9()
        victim.start()
        lab.wait_until(lambda: not path.exists(), f"{path} is deleted", explain=producer.report)
        wait_mirror(lab, consumer, path, content)
    assert consumer.terminate() == 0


def test_a_file_that_a_writer_has_open_is_deleted_when_it_is_closed(lab: Lab) -> None:
    path = lab.files_of("alpha") / "open.log"
    with path.open("wb", buffering=0) as writer:
        writer.write(lines(10))
        producer, consumer = lab.pair("--delete-after-commit")
        lab.wait_until(lambda: "a file is not deleted" in producer.stderr(), "it is in use", explain=producer.report)
        writer.write(lines(20, "more"))
        wait_mirror(lab, consumer, path, lines(10) + lines(20, "more"))
        assert path.exists()

    wait_gone(lab, producer, path)
    assert consumer.terminate() == 0


def test_a_file_with_another_name_and_one_behind_a_link_stay(lab: Lab) -> None:
    folder = lab.files_of("alpha")
    kept = folder.parent / "kept.log"
    linked, plain = folder / "linked.log", folder / "plain.log"
    kept.write_bytes(lines(10))
    linked.write_bytes(lines(20))
    os.link(linked, folder.parent / "another-name")
    (folder / "link.log").symlink_to(kept)
    producer, consumer = lab.pair("--delete-after-commit")
    lab.wait_until(
        lambda: producer.stderr().count("a file is not deleted") >= 2, "both are left", explain=producer.report
    )

    plain.write_bytes(lines(5))

    wait_gone(lab, producer, plain)
    assert kept.read_bytes() == lines(10)
    assert linked.read_bytes() == lines(20)
    assert (folder / "link.log").is_symlink()
    assert sorted(p.name for p in folder.iterdir()) == ["link.log", "linked.log"]
    assert consumer.terminate() == 0


def test_appending_all_the_time_loses_no_line(lab: Lab) -> None:
    """Each line is written by a writer that opens the file anew, as shells do: it may be just being deleted."""
    path = lab.files_of("alpha") / "spool.log"
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], "--sync", "0.05", merged=True)
    producer = lab.producer(link.producers[0], "--delete-after-commit")
    count = 0
    while producer.stderr().count(DELETED) < 4:
        for _ in range(lab.rng.randrange(1, 200)):
            with path.open("ab") as writer:
                writer.write(b"%d\n" % count)
            count += 1
        deleted = producer.stderr().count(DELETED)
        lab.wait_until(lambda: producer.stderr().count(DELETED) > deleted or not path.exists(), "it is deleted")

    lab.wait_until(lambda: len(consumer.merged_lines()) == count, "all lines are there", explain=consumer.report)
    assert sorted(map(int, consumer.merged_lines())) == list(range(count))


def test_a_batch_ends_when_its_files_are_deleted(lab: Lab) -> None:
    folder = lab.files_of("alpha")
    for number in range(50):
        (folder / f"{number}.log").write_bytes(lines(100, str(number)))
    (folder / "empty.log").touch()
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], merged=True)
    producer = lab.producer(link.producers[0], "--once", "--delete-after-commit", "--delete-grace", "1.5")

    assert producer.wait_exit() == 0
    assert [p.name for p in folder.iterdir()] == ["empty.log"], "of an empty file there is nothing to commit"
    assert len(consumer.merged_lines()) == 50 * 100
