"""Files and surroundings that nobody wishes for: each is handled as a user would want, and told in a sentence."""

from __future__ import annotations

import base64
import json
import os
import socket
import sqlite3
from pathlib import Path

import pytest

from fantail_lab import LOOPBACK, Agent, Lab, Place, Seat, pace
from fantail_sources import Source, files_below

MANY_FILES = 150
FEW_DESCRIPTORS = 64
BEYOND_32_BITS = (4 << 30) + 4097


def without_override() -> Place:
    """A place where even root obeys the permissions of files."""
    if os.getuid() != 0:
        return LOOPBACK
    drop = "-dac_override,-dac_read_search"
    return Place(LOOPBACK.address, LOOPBACK.interface, ("setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}"))


def with_few_descriptors() -> Place:
    return Place(LOOPBACK.address, LOOPBACK.interface, ("prlimit", f"--nofile={FEW_DESCRIPTORS}:{FEW_DESCRIPTORS}"))


def lines_about(agent: Agent, *words: str) -> list[str]:
    return [line for line in agent.stderr().splitlines() if all(word in line for word in words)]


# --- what is no file ---------------------------------------------------------------------------------------------------


def make_special(kind: str, path: Path) -> None:
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            folder = os.open(path.parent, os.O_PATH)
            try:
                server.bind(f"/proc/self/fd/{folder}/{path.name}")
            finally:
                os.close(folder)
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    else:
        try:
            os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # as /dev/zero
        except PermissionError:
            pytest.skip("device nodes cannot be made here")


SPECIAL = {"FIFO": "FIFO", "socket": "socket", "device": "device", "link to a device": "device"}


@pytest.mark.parametrize("when", ("before", "later"))
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_regular_file_is_refused_with_a_sentence(lab: Lab, kind: str, when: str) -> None:
    """It is told once, never opened, and does not hold up the files beside it."""
    sound = lab.source("sound.log")
    sound.append_lines(10)
    special = sound.path.with_name("special.log")
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True)
    if when == "before":
        make_special(kind, special)
    producer = lab.producer(link.producers[0], "--rescan", "0.2", globs=[sound.path.with_name("*.log")])
    lab.wait_mirrored(consumer)
    if when == "later":
        make_special(kind, special)

    lab.wait_until(lambda: lines_about(producer, str(special), SPECIAL[kind]), "what is no file is named")
    if kind == "FIFO":
        # Nobody reads it: a writer that does not wait finds no reader.
        with pytest.raises(OSError):
            os.open(special, os.O_WRONLY | os.O_NONBLOCK)
    for _ in range(3):  # time for a few walks
        sound.append_lines(10)
        lab.wait_mirrored(consumer)
        pace(0.3)

    assert len(lines_about(producer, str(special))) == 1
    assert producer.terminate() == 0


def test_a_file_that_takes_the_place_of_a_fifo_is_read(lab: Lab) -> None:
    source = lab.source("app.log")
    os.mkfifo(source.path)
    producer, consumer = lab.pair()
    lab.wait_until(lambda: lines_about(producer, str(source.path), "FIFO"), "the FIFO is named")

    source.path.unlink()
    source.append_lines(10)

    lab.wait_mirrored(consumer)


def test_a_directory_without_permission_is_named_once_and_read_when_it_can_be(lab: Lab) -> None:
    hidden, plain = lab.source("hidden/app.log"), lab.source("plain/app.log")
    for source in (hidden, plain):
        source.append_lines(10)
    hidden.path.parent.chmod(0)
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True)
    pattern = f"{lab.files_of('alpha')}/**/*.log"
    producer = lab.producer(Seat(without_override(), link.producers[0].flags), "--rescan", "0.5", globs=[pattern])

    def refusals() -> list[str]:
        return lines_about(producer, "hidden", "denied")

    lab.wait_until(refusals, "the directory is named")
    for _ in range(3):  # time for a few walks
        plain.append_lines(10)
        lab.wait_until(lambda: consumer.mirrored(plain).read_bytes() == plain.text(), "the other file flows")
        pace(0.6)
    told = refusals()
    hidden.path.parent.chmod(0o755)

    lab.wait_mirrored(consumer)
    assert len(told) == 1


# --- names -------------------------------------------------------------------------------------------------------------


def test_names_of_255_bytes_that_differ_at_the_end_are_two_mirrors(lab: Lab) -> None:
    """Longer than a mirror's own name may be, which has room for the time and the id of older streams."""
    texts = {lab.files_of("alpha") / ("n" * 250 + f"{i}.log"): b"first life of %d\n" % i for i in range(3)}
    for path, text in texts.items():
        path.write_bytes(text)
    _, consumer = lab.pair()

    def mirrored() -> list[bytes]:
        return sorted(path.read_bytes() for path in files_below(consumer.mirror))

    lab.wait_until(lambda: mirrored() == sorted(texts.values()), "each has its mirror")
    assert not [path for path in files_below(consumer.mirror) if "@" in path.name], "none stands for an older stream"
    for path, text in texts.items():
        path.write_bytes(b"second" + text)

    both = [*texts.values(), *(b"second" + text for text in texts.values())]
    lab.wait_until(lambda: mirrored() == sorted(both), "the older ones are kept beside the new ones")


@pytest.mark.parametrize("name", ("new\nline.log", "\udcff\udcfe.log"), ids=("line feed", "not utf-8"))
def test_a_strange_name_leaves_jsonl_valid(lab: Lab, name: str) -> None:
    source = lab.source(name)
    source.append(b"one\ntwo\nthree\n")
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], "--format", "jsonl", mirror=True, merged=True)
    lab.producer(link.producers[0])
    lab.wait_until(lambda: len(consumer.merged_lines()) == 3, "the lines arrive")

    records = [json.loads(line) for line in consumer.merged_lines()]

    assert [record["line"] for record in records] == ["one", "two", "three"]
    path = records[0]["path"].encode() if "path" in records[0] else base64.b64decode(records[0]["path_base64"])
    assert path == os.fsencode(source.path)


# --- files that change under the reader --------------------------------------------------------------------------------


def test_a_file_that_shrinks_while_it_is_read_is_no_mixture(lab: Lab) -> None:
    """Cut to a part of itself again and again while its backlog is on the way."""
    source = lab.source()
    source.append_lines(150_000)
    whole = source.text()
    _, consumer = lab.pair("--rate", "100")
    for left in (3, 10, 50):
        size = len(whole) // left
        lab.wait_until(lambda: consumer.mirrored(source).stat().st_size > size, "more of it has arrived than will be left")
        os.truncate(source.path, size)

    rest = source.path.read_bytes()
    lab.wait_until(lambda: consumer.mirrored(source).read_bytes() == rest, "the mirror is what is left of the file")
    for older in consumer.older(source):
        text = older.read_bytes()
        assert all(a == b or a == 0 for a, b in zip(text, whole)), f"{older} is no piece of the file"
        assert len(text) <= len(whole)


def test_files_that_vanish_at_once_harm_nobody(lab: Lab) -> None:
    sound = lab.source("sound.log")
    producer, consumer = lab.pair()
    for i in range(300):
        path = sound.path.with_name(f"short-{i}.log")
        path.write_bytes(b"short life\n")
        path.unlink()
    sound.append_lines(10)

    lab.wait_until(lambda: consumer.mirrored(sound).read_bytes() == sound.text(), "the other file arrives")
    assert producer.terminate() == 0


# --- large and sparse --------------------------------------------------------------------------------------------------


def test_offsets_beyond_4_gib(lab: Lab) -> None:
    """A sparse file that is longer than 32 bits can tell, followed from its end on."""
    path = lab.files_of("alpha") / "large.log"
    with path.open("wb") as file:
        file.truncate(BEYOND_32_BITS - 1)
        file.seek(0, os.SEEK_END)
        file.write(b"\n")
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], "--format", "jsonl", mirror=True, merged=True)
    producer = lab.producer(link.producers[0], "--from", "end")
    mirror = consumer.mirror / "alpha" / str(path).lstrip("/")
    lab.wait_until(lambda: mirror.stat().st_size == BEYOND_32_BITS, "the mirror begins behind the hole")
    text = b"".join(b"line %06d\n" % number for number in range(10_000))
    with path.open("ab") as file:
        file.write(text[:60_000])
        file.flush()
        lab.wait_until(lambda: mirror.stat().st_size == BEYOND_32_BITS + 60_000, "the first part arrives")
        producer.kill9()
        file.write(text[60_000:])
    producer.start()

    lab.wait_until(lambda: mirror.stat().st_size == BEYOND_32_BITS + len(text), "all of it arrives")
    with mirror.open("rb") as file:
        file.seek(BEYOND_32_BITS)
        assert file.read() == text
    assert mirror.stat().st_blocks * 512 < 10 << 20
    lab.wait_until(lambda: len(consumer.merged_lines()) == 10_000, "all lines arrive")
    offsets = [json.loads(line)["offset"] for line in consumer.merged_lines()]
    assert offsets == [BEYOND_32_BITS + 12 * number for number in range(10_000)]


def test_a_sparse_file_arrives_byte_for_byte(lab: Lab) -> None:
    path = lab.files_of("alpha") / "sparse.log"
    with path.open("wb") as file:
        for offset in (0, 5_000_001, 60_000_000):
            file.seek(offset)
            file.write(lab.rng.randbytes(1000))
        file.truncate(80_000_000)
    _, consumer = lab.pair()
    mirror = consumer.mirror / "alpha" / str(path).lstrip("/")

    lab.wait_until(lambda: mirror.stat().st_size == 80_000_000, "all of it arrives")

    assert mirror.read_bytes() == path.read_bytes()


# --- surroundings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ("producer", "consumer"))
def test_the_state_of_a_newer_version_is_refused_and_left_as_it_is(lab: Lab, who: str) -> None:
    lab.source().append_lines(10)
    producer, consumer = lab.pair()
    lab.wait_mirrored(consumer)
    for agent in (producer, consumer):
        assert agent.terminate() == 0
    agent, name = (producer, "registry.db") if who == "producer" else (consumer, "cursors.db")
    database = agent.folder / "state" / name
    with sqlite3.connect(database) as store:
        store.execute("UPDATE meta SET value = '99' WHERE key LIKE '%schema%' OR key LIKE '%version%'")
        assert store.execute("SELECT changes()").fetchone()[0] == 1
    store.close()

    agent.start("--idle-exit", "5") if who == "consumer" else agent.start("--once")
    code = agent.wait_exit()

    assert code in (1, 2)
    assert lines_about(agent, name, "99") or lines_about(agent, "version", "99")
    with sqlite3.connect(database) as store:
        assert store.execute("SELECT count(*) FROM meta WHERE value = '99'").fetchone()[0] == 1
    store.close()


def some_sources(lab: Lab) -> list[Source]:
    sources = [lab.source(f"app-{number:03d}.log") for number in range(MANY_FILES)]
    for source in sources:
        source.append_lines(5)
    return sources


@pytest.mark.parametrize("who", ("producer", "consumer"))
def test_with_few_descriptors_all_files_arrive_in_turn(lab: Lab, who: str) -> None:
    """RLIMIT_NOFILE of 64, more than twice as many files: it is told, and nothing is left behind."""
    sources = some_sources(lab)
    link = lab.link("tcp")
    few = with_few_descriptors()
    seats = {
        "consumer": Seat(few if who == "consumer" else LOOPBACK, link.consumers[0].flags),
        "producer": Seat(few if who == "producer" else LOOPBACK, link.producers[0].flags),
    }
    consumer = lab.consumer(seats["consumer"], mirror=True, merged=True)
    producer = lab.producer(seats["producer"])
    lab.wait_mirrored(consumer, deadline=90)
    for source in sources:
        source.append_lines(5)

    lab.wait_mirrored(consumer, deadline=90)
    lab.wait_merged(consumer)
    assert producer.terminate() == 0
    assert consumer.terminate() == 0
    about = lines_about(producer, "open files")
    assert len(about) <= 12, about
