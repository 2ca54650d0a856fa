"""Mistakes, damage and malice: each is told with its value, the reason and the remedy, and nothing else breaks."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from fantail_lab import LOOPBACK, Agent, Lab, Place, Seat, pace, replace_flag
from fantail_sources import files_below

SQLITE_MAGIC = b"SQLite format 3\0"
USAGE = 2


def told_about(text: str, value: str) -> str:
    """The lines that name a value, each with the one after it; in lower case."""
    lines = text.lower().splitlines()
    return "\n".join("\n".join(lines[i : i + 2]) for i, line in enumerate(lines) if value.lower() in line)


def assert_told(text: str, value: str, *remedy: str) -> None:
    said = told_about(text, value)
    assert said, f"nothing is said about {value!r} in:\n{text}"
    missing = [word for word in remedy if word not in said]
    assert not missing, f"what is said about {value!r} does not mention {missing}:\n{said}"


# --- flags and configuration -------------------------------------------------------------------------------------------


def test_all_mistakes_in_a_consumers_flags_are_told_at_once(lab: Lab) -> None:
    mistakes = {
        ("--transport", "pigeon"): ("tcp", "epgm"),
        ("--from", "yesterday"): ("beginning", "now"),
        ("--shard", "5/3"): ("--shard",),
        ("--output", "nowhere:x"): ("stdout", "mirror", "file"),
        ("--sync", "soon"): ("--sync",),
        ("--max-pending", "lots"): ("--max-pending",),
        ("--format", "{nonsense}"): ("{line}",),
        ("--port", "99999"): ("65535",),
    }

    done = lab.run("fantail-consumer", *(word for flag in mistakes for word in flag))

    assert done.code == USAGE
    for (_, value), remedy in mistakes.items():
        assert_told(done.err, value, *remedy)


def test_all_mistakes_in_a_producers_flags_are_told_at_once(lab: Lab) -> None:
    mistakes = {
        ("--transport", "pigeon"): ("tcp", "epgm"),
        ("--from", "tomorrow"): ("beginning", "end"),
        ("--compression", "gzip"): ("none", "zstd"),
        ("--rate", "fast"): ("--rate",),
        ("--endpoint", "tcp:/half"): ("tcp://",),
        ("--hold-time", "forever"): ("--hold-time",),
    }

    done = lab.run("fantail-producer", *(word for flag in mistakes for word in flag), "/var/log/*.log")

    assert done.code == USAGE
    for (_, value), remedy in mistakes.items():
        assert_told(done.err, value, *remedy)


def test_mistakes_in_file_and_flags_are_told_together(lab: Lab) -> None:
    file = lab.root / "consumer.ini"
    file.write_text("# a comment\nfrmo=now\nsync=soon\njust words\n")

    done = lab.run("fantail-consumer", "--config", file, "--transport", "pigeon", "--check")

    assert done.code == USAGE
    for value in ("frmo", "soon", "pigeon", "just words"):
        assert_told(done.err, value)


def test_an_unknown_flag_is_a_usage_error(lab: Lab) -> None:
    done = lab.run("fantail-consumer", "--colour", "red")

    assert done.code == USAGE
    assert_told(done.err, "--colour")


def test_a_producer_without_files_is_a_usage_error(lab: Lab) -> None:
    done = lab.run("fantail-producer")

    assert done.code == USAGE
    assert_told(done.err, "glob")


def test_norm_is_refused_with_a_sentence(lab: Lab) -> None:
    done = lab.run("fantail-consumer", "--endpoint", "norm://127.0.0.1:7000")

    assert done.code == USAGE
    assert_told(done.err, "norm://127.0.0.1:7000", "tcp", "epgm")


@pytest.mark.parametrize(
    "program, flag, files", (("fantail-producer", "--rescan", ("/var/log/*.log",)), ("fantail-consumer", "--sync", ()))
)
def test_what_would_be_done_without_a_pause_is_refused(lab: Lab, program: str, flag: str, files: tuple[str, ...]) -> None:
    done = lab.run(program, flag, "0", "--check", *files)

    assert done.code == USAGE
    assert_told(done.err, flag, "processor", "or more")


@pytest.mark.parametrize("program, files", (("fantail-producer", ("/var/log/*.log",)), ("fantail-consumer", ())))
def test_an_unknown_interface_is_told_with_those_that_exist(lab: Lab, program: str, files: tuple[str, ...]) -> None:
    done = lab.run(program, "--transport", "epgm", "--interface", "nosuch0", *files)

    assert done.code == USAGE
    assert_told(done.err, "nosuch0", "lo", "127.0.0.1")


@pytest.mark.parametrize("which, flag", ((0, "--endpoint"), (1, "--control")), ids=("data", "control"))
def test_a_port_in_use_is_told_with_the_flag_that_changes_it(lab: Lab, which: int, flag: str) -> None:
    port = lab.ports.take()
    with socket.create_server(("127.0.0.1", port + which)):
        done = lab.run("fantail-consumer", "--endpoint", f"tcp://127.0.0.1:{port}")

    assert done.code in (1, USAGE)
    assert_told(done.err, str(port + which), flag)


def test_a_state_directory_in_use_is_refused_with_the_pid(lab: Lab) -> None:
    lab.source().append_lines(10)
    producer, consumer = lab.pair()
    lab.wait_mirrored(consumer)

    for program, first in (("fantail-producer", producer), ("fantail-consumer", consumer)):
        other_port = f"tcp://127.0.0.1:{lab.ports.take()}"
        second = lab.run(program, *replace_flag(first.flags, "--endpoint", other_port))
        assert second.code in (1, USAGE)
        assert_told(second.err, str(first.pid))

    lab.sources[0].append_lines(10)
    lab.wait_mirrored(consumer)


# --- files -------------------------------------------------------------------------------------------------------------


def test_a_glob_that_matches_nothing_is_a_warning_and_waits(lab: Lab) -> None:
    pattern = lab.files_of("alpha") / "later*.log"
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True)
    producer = lab.producer(link.producers[0], globs=[pattern])
    lab.wait_until(lambda: str(pattern) in producer.stderr(), "the producer names the glob that matches nothing")

    lab.source("later-on.log").append_lines(10)

    lab.wait_mirrored(consumer)


def test_an_unreadable_file_is_named_once_and_read_when_it_can_be(lab: Lab) -> None:
    secret, plain = lab.source("secret.log"), lab.source("plain.log")
    secret.append_lines(10)
    secret.path.chmod(0)
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True)
    producer = lab.producer(Seat(without_override(), link.producers[0].flags), "--rescan", "1")

    def refusals() -> list[str]:
        return [line for line in producer.stderr().splitlines() if "secret.log" in line and "denied" in line]

    lab.wait_until(refusals, "the unreadable file is named")
    for _ in range(3):  # time for a few retries
        plain.append_lines(10)
        lab.wait_until(lambda: consumer.mirrored(plain).read_bytes() == plain.text(), "the other file flows")
        pace(1)
    told = refusals()
    secret.path.chmod(0o644)

    lab.wait_mirrored(consumer)
    assert len(told) == 1


def without_override() -> Place:
    """A place where even root obeys the permissions of files."""
    if os.getuid() != 0:
        return LOOPBACK
    drop = "-dac_override,-dac_read_search"
    return Place(LOOPBACK.address, LOOPBACK.interface, ("setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}"))


STRANGE_NAMES = {
    "blank": "two words.log",
    "option": "-rf",
    "shell": "quote'\"`$(id).log",
    "format": "per%cent{line}.log",
    "older mirror": "app.log@20260101T000000Z-deadbeef",
    "dots": "app..log",
    "utf-8": "gr\u00fcn.log",
    "not utf-8": "\udcff\udcfe.log",
    "line feed": "new\nline.log",
}


@pytest.mark.parametrize("name", STRANGE_NAMES.values(), ids=STRANGE_NAMES)
def test_strange_names_are_mirrored_under_the_same_name(lab: Lab, name: str) -> None:
    source = lab.source(name)
    source.append(lab.rng.randbytes(1000))
    _, consumer = lab.pair()

    lab.wait_mirrored(consumer)

    assert consumer.mirrored(source).exists()


# --- damage ------------------------------------------------------------------------------------------------------------


def databases(folder: Path) -> list[Path]:
    return [path for path in files_below(folder) if path.read_bytes().startswith(SQLITE_MAGIC)]


def damage(lab: Lab, agent: Agent) -> list[bytes]:
    """Overwrites the databases of a program that is not running; returns what is in them now."""
    found = databases(agent.folder / "state")
    assert found, f"{agent.name} has no database"
    junk = [lab.rng.randbytes(database.stat().st_size) for database in found]
    for database, content in zip(found, junk):
        database.write_bytes(content)
    return junk


def set_aside(agent: Agent, junk: list[bytes]) -> bool:
    """Every damaged database is kept under another name, which was told."""
    files = {path.read_bytes(): path.name for path in files_below(agent.folder / "state")}
    return all(files.get(content, "not there") in agent.stderr() for content in junk)


def test_a_damaged_registry_is_set_aside_and_rebuilt_from_what_consumers_know(lab: Lab) -> None:
    source = lab.source()
    source.append_lines(1000)
    [producer], [consumer] = lab.party(lab.link("tcp"))
    lab.wait_mirrored(consumer)
    assert producer.terminate() == 0
    junk = damage(lab, producer)

    source.append_lines(1000)
    producer.start()
    lab.wait_until(lambda: set_aside(producer, junk), "the damaged registry is set aside and told")

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


def test_damaged_cursors_are_set_aside_and_the_mirror_is_whole_again(lab: Lab) -> None:
    source = lab.source()
    source.append_lines(1000)
    _, consumer = lab.pair()
    lab.wait_mirrored(consumer)
    assert consumer.terminate() == 0
    junk = damage(lab, consumer)
    old = source.text()

    source.append_lines(1000)
    consumer.start()
    lab.wait_until(lambda: set_aside(consumer, junk), "the damaged cursors are set aside and told")

    # Without its cursors the consumer cannot know whose bytes the old mirror holds: it is kept beside the new one.
    lab.wait_until(lambda: consumer.mirrored(source).read_bytes() == source.text(), "the mirror is whole again")
    assert [path.read_bytes() for path in consumer.older(source)] == [old]


# --- paths from the wire -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", ("..", "../../escape", "{root}/escape", "a/../../escape", "", "escape\nnode"))
def test_a_hostile_node_name_does_not_leave_the_output_folder(lab: Lab, node: str) -> None:
    """Either the producer refuses it, or the consumer keeps it inside."""
    source = lab.source()
    source.append_lines(10)
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True)
    producer = lab.producer(link.producers[0], "--once", start=False)
    producer.flags = replace_flag(producer.flags, "--node", node.format(root=lab.root))
    producer.start()

    assert producer.wait_exit() in (0, USAGE)

    allowed = (lab.files_of("alpha"), lab.root / "kept", consumer.mirror)
    found = lab.root.rglob(f"{source.path.name}*")
    assert [path for path in found if not any(folder in path.parents for folder in allowed)] == []


def test_a_link_inside_the_mirror_is_not_followed_out_of_it(lab: Lab) -> None:
    outside = lab.root / "outside"
    outside.mkdir()
    trapped, sound = lab.source("trap/app.log"), lab.source("sound.log")
    for source in (trapped, sound):
        source.append_lines(10)
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True, start=False)
    trap = consumer.mirrored(trapped).parent
    trap.parent.mkdir(parents=True)
    trap.symlink_to(outside)
    consumer.start()
    lab.producer(link.producers[0], globs=[sound.path, trapped.path])

    lab.wait_until(
        lambda: consumer.mirrored(sound).read_bytes() == sound.text() and "trap" in consumer.stderr(),
        "the sound file arrives and the link is told",
    )
    consumer.terminate()

    assert files_below(outside) == []
