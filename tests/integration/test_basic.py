"""What a first user does: start both programs, choose topics, end them, ask them for their settings."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fantail_lab import LOOPBACK, Agent, Consumer, Lab, Seat, port_is_free, try_lock, wait_until
from fantail_sources import Source, files_below

DEFAULT_PORT = 5550
BOTH_PROGRAMS = ("fantail-producer", "fantail-consumer")

COMMON_FLAGS = (
    "--transport --endpoint --interface --group --port --control --state-dir --from --once --config --check --print-config"
    " --log-level --version --help"
).split()
FLAGS = {
    "fantail-producer": COMMON_FLAGS
    + (
        "--bind --advertise --node --exclude --rate --compression --chunk --patience --rescan --poll --hold-time"
        " --hold-bytes --drain"
    ).split(),
    "fantail-consumer": COMMON_FLAGS
    + (
        "--connect --topic --name --output --format --sync --shard --idle-exit --repair-after --max-pending"
        " --rotate-bytes --rotate-every --flush-partial"
    ).split(),
}


@pytest.fixture
def default_port() -> Iterator[None]:
    """The port that programs without options use: one test at a time, and only while nobody else has it."""
    lock_file = Path(tempfile.gettempdir()) / f"fantail-test-port-{DEFAULT_PORT}-{os.getuid()}"
    lock = wait_until(lambda: try_lock(lock_file), "the tests that use the default port take turns", deadline=60)
    try:
        if not all(port_is_free(port) for port in (DEFAULT_PORT, DEFAULT_PORT + 1)):
            pytest.skip(f"port {DEFAULT_PORT} or {DEFAULT_PORT + 1} is in use on this machine")
        yield
    finally:
        os.close(lock)


def write_until_shown(lab: Lab, source: Source, consumer: Agent) -> list[bytes]:
    """Appends a line at a time until one is shown, then one more, which is the last that is waited for.

    Returns the lines that are shown then.
    """
    read = consumer.merged_lines if isinstance(consumer, Consumer) else consumer.lines
    lab.wait_until(lambda: source.append_lines(1) and read(), "a line is shown")
    last = source.append_lines(1).rstrip(b"\n")
    lab.wait_until(lambda: last in read(), "the last line is shown")
    return read()


# --- meeting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", BOTH_PROGRAMS)
def test_without_options_the_two_meet_in_either_order(lab: Lab, default_port: None, first: str) -> None:
    source = lab.source()
    source.append_lines(1)
    agents = [lab.bare("fantail-consumer"), lab.bare("fantail-producer", source.path)]
    agents.sort(key=lambda agent: agent.name != first)
    agents[0].start()
    lab.wait_until(agents[0].stderr, f"{first} says that it started")
    agents[1].start()

    consumer = next(agent for agent in agents if agent.name == "fantail-consumer")
    shown = write_until_shown(lab, source, consumer)

    assert shown == source.text().splitlines()[-len(shown) :]


@pytest.mark.parametrize("first", ("producer", "consumer"))
@pytest.mark.parametrize("kind", ("tcp", "tcp-bind", "ipc", pytest.param("epgm", marks=pytest.mark.epgm)))
def test_order_of_start_does_not_matter(lab: Lab, kind: str, first: str) -> None:
    link = lab.link(kind)
    lab.source().append_lines(1000)
    consumer = lab.consumer(link.consumers[0], mirror=True, start=False)
    producer = lab.producer(link.producers[0], start=False)
    agents = [consumer, producer] if first == "consumer" else [producer, consumer]
    agents[0].start()
    lab.wait_until(agents[0].stderr, f"the {first} says that it started")
    agents[1].start()

    lab.wait_mirrored(consumer)


def test_a_port_chosen_by_the_system_is_told(lab: Lab) -> None:
    lab.source().append_lines(10)
    consumer = lab.consumer(Seat(LOOPBACK, ("--endpoint", "tcp://127.0.0.1:*")), mirror=True)
    endpoint, control = lab.listening(consumer)
    assert not endpoint.endswith((":*", ":0"))

    lab.producer(Seat(LOOPBACK, ("--endpoint", endpoint, "--control", control)))

    lab.wait_mirrored(consumer)


# --- what is sent ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ("tcp", "epgm"))
def test_the_log_has_no_lines_of_libraries(lab: Lab, kind: str) -> None:
    """OpenPGM writes to stderr by itself, unless it is told not to."""
    lab.source().append_lines(1000)
    link = lab.link(kind)
    consumer = lab.consumer(link.consumers[0], mirror=True)
    producer = lab.producer(link.producers[0])
    lab.wait_mirrored(consumer)
    for agent in (producer, consumer):
        assert agent.terminate() == 0
        strange = [line for line in agent.stderr().splitlines() if not re.match(r"\d{4}-\d\d-\d\dT\S+Z \w+ ", line)]
        assert not strange, strange


@pytest.mark.parametrize("compression", ("none", "auto", "zstd", "zstd:3"))
def test_compression_changes_no_byte(lab: Lab, compression: str) -> None:
    lab.source("text.log").append_lines(10_000)
    lab.source("random.bin").append(lab.rng.randbytes(1_000_000))
    lab.source("zero.bin").append(bytes(1_000_000))
    _, consumer = lab.pair("--compression", compression)

    lab.wait_mirrored(consumer)


def test_small_chunks_carry_everything_too(lab: Lab) -> None:
    lab.source().append_lines(5000)
    _, consumer = lab.pair("--chunk", "4096", merged=True)

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


def test_many_files_arrive(lab: Lab) -> None:
    for number in range(300):
        lab.source(f"{number}.log").append_lines(number % 7 + 1)
    _, consumer = lab.pair(merged=True)

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)


def test_excluded_files_are_not_sent(lab: Lab) -> None:
    wanted, unwanted = lab.source("wanted.log"), lab.source("unwanted.log")
    for source in (unwanted, wanted):
        source.append_lines(100)
    producer, consumer = lab.pair("--exclude", f"{lab.files_of('alpha')}/un*", "--once")

    assert producer.wait_exit() == 0

    assert files_below(consumer.mirror) == [consumer.mirrored(wanted)]


# --- what is taken -----------------------------------------------------------------------------------------------------


def test_a_topic_takes_what_is_below_it_but_not_what_only_begins_like_it(lab: Lab) -> None:
    topics = ("web", "web/access", "webmail", "db")
    sources = {topic: lab.source(topic.replace("/", "-")) for topic in topics}
    for source in sources.values():
        source.append_lines(100)
    link = lab.link("tcp", consumers=[LOOPBACK] * 3)
    everything = lab.consumer(link.consumers[0], name="everything", merged=True)
    web = lab.consumer(link.consumers[1], "--topic", "web", name="web", merged=True)
    two = lab.consumer(link.consumers[2], "--topic", "db", "--topic", "web/access", name="two", merged=True)
    lab.producer(link.producers[0], globs=[f"{topic}={source.path}" for topic, source in sources.items()])

    lab.wait_merged(everything)
    lab.wait_merged(web, sources=[sources["web"], sources["web/access"]])
    lab.wait_merged(two, sources=[sources["db"], sources["web/access"]])


def test_files_without_a_topic_have_the_topic_files(lab: Lab) -> None:
    lab.source().append_lines(10)
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], "--topic", "files", merged=True)
    lab.producer(link.producers[0])

    lab.wait_merged(consumer)


def test_shards_share_the_streams_and_leave_none_out(lab: Lab) -> None:
    for number in range(20):
        lab.source(f"{number}.log").append_lines(10)
    link = lab.link("tcp", consumers=[LOOPBACK] * 2)
    shards = [
        lab.consumer(seat, "--shard", f"{number}/2", name=f"shard{number}", mirror=True)
        for number, seat in enumerate(link.consumers, start=1)
    ]
    lab.producer(link.producers[0], "--once").wait_exit()

    names = [{path.name for path in files_below(shard.mirror)} for shard in shards]
    assert names[0].isdisjoint(names[1])
    assert names[0] | names[1] == {source.path.name for source in lab.sources}


@pytest.mark.parametrize(
    "producer_flags, since", ((("--from", "beginning"), "now"), (("--from", "end"), "beginning")), ids=("now", "end")
)
def test_history_can_be_left_out(lab: Lab, producer_flags: tuple[str, ...], since: str) -> None:
    source = lab.source()
    history = source.append_lines(500).splitlines()
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], merged=True, since=since)
    lab.producer(link.producers[0], *producer_flags)

    shown = write_until_shown(lab, source, consumer)

    assert shown == source.text().splitlines()[-len(shown) :]
    assert not set(shown) & set(history)


def test_from_now_means_from_the_first_start_not_from_every_start(lab: Lab) -> None:
    """Where a consumer began is kept and committed, though nothing came since."""
    source = lab.source()
    source.append_lines(10)
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], merged=True, since="now")
    producer = lab.producer(link.producers[0], "--once", "--from", "beginning")
    assert producer.wait_exit() == 0
    assert consumer.terminate() == 0

    new = source.append_lines(5).splitlines()
    consumer.start()
    producer.start()

    assert producer.wait_exit() == 0
    assert consumer.merged_lines() == new


def test_history_comes_from_the_beginning_when_asked_for(lab: Lab) -> None:
    source = lab.source()
    source.append_lines(5000)
    _, consumer = lab.pair("--from", "beginning", merged=True)
    lab.wait_merged(consumer)

    source.append_lines(1)

    lab.wait_merged(consumer)


# --- ending ------------------------------------------------------------------------------------------------------------


def test_a_producer_that_runs_once_ends_when_everything_is_on_the_consumers_disk(lab: Lab) -> None:
    for name in ("a.log", "b.log", "c.log"):
        lab.source(name).append_lines(10_000)
    producer, consumer = lab.pair("--once")

    assert producer.wait_exit() == 0

    consumer.kill9()
    lab.assert_mirrored(consumer)


def test_a_producer_that_runs_once_waits_for_a_durable_consumer(lab: Lab) -> None:
    lab.source().append_lines(100)
    link = lab.link("tcp")
    producer = lab.producer(link.producers[0], "--once")
    lab.wait_until(producer.stderr, "the producer says that it started")
    consumer = lab.consumer(link.consumers[0], mirror=True, start=False)
    assert producer.alive

    consumer.start()

    assert producer.wait_exit() == 0


@pytest.mark.parametrize("ending", (("--idle-exit", "1"), ("--once",)), ids=("idle-exit", "once"))
def test_a_consumer_ends_when_everything_known_is_delivered(lab: Lab, ending: tuple[str, ...]) -> None:
    lab.source().append_lines(10_000)
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], *ending, mirror=True, merged=True)
    lab.producer(link.producers[0])

    assert consumer.wait_exit() == 0

    lab.assert_mirrored(consumer)


def test_a_polite_end_delivers_everything_and_succeeds(lab: Lab) -> None:
    source = lab.source()
    producer, consumer = lab.pair("--drain", "30")
    source.append_lines(1)
    lab.wait_mirrored(consumer)
    source.append_lines(50_000)

    assert producer.terminate() == 0
    with closing(sqlite3.connect(producer.folder / "state" / "registry.db")) as registry:
        assert registry.execute("SELECT committed FROM commits").fetchall() == [(source.current.size,)]
    assert consumer.terminate() == 0

    lab.assert_mirrored(consumer)


def test_a_file_that_never_stops_growing_does_not_put_off_the_end(lab: Lab) -> None:
    """Every turn of the producer finds something, before the signal and after it."""
    growing = lab.files_of("alpha") / "growing.log"
    producer, consumer = lab.pair("--drain", "0.5")
    with growing.open("ab", buffering=0) as file:
        writer = subprocess.Popen(("sh", "-c", "while :; do echo another line; done"), stdout=file)
    try:
        lab.wait_until(lambda: any(path.name == growing.name for path in files_below(consumer.mirror)), "lines flow")
        assert producer.terminate() == 0
    finally:
        writer.kill()
        writer.wait()


def test_an_output_that_cannot_be_written_at_the_end_is_tried_again(lab: Lab) -> None:
    source = lab.source()
    source.append_lines(10)
    _, consumer = lab.pair(mirror=False, merged=True)
    lab.wait_merged(consumer)
    folder = consumer.merged.parent
    with consumer.merged.open("rb") as deleted:
        consumer.freeze()
        consumer.merged.unlink()
        folder.rmdir()
        folder.write_text("in the way of another")
        consumer.thaw()
        last = source.append_lines(1)
        lab.wait_until(lambda: deleted.seek(0) == 0 and deleted.read().endswith(last), "the consumer has taken the line")

        os.kill(consumer.pid, signal.SIGTERM)
        lab.wait_until(lambda: "outputs are not settled" in consumer.stderr(), "the consumer does not end yet")
        folder.unlink()

        assert consumer.wait_exit() == 0
    assert consumer.merged.read_bytes().endswith(last)


def test_once_that_is_stopped_before_its_end_is_no_success(lab: Lab) -> None:
    lab.source().append_lines(10)
    link = lab.link("tcp")
    producer = lab.producer(link.producers[0], "--once", "--drain", "0.1")
    lab.wait_until(lambda: "producer started" in producer.stderr(), "the producer runs")
    assert producer.terminate() == 1
    consumer = lab.consumer(link.consumers[0], "--once", mirror=True)
    lab.wait_until(lambda: "listening" in consumer.stderr(), "the consumer runs")
    assert consumer.terminate() == 1

    consumer.start()
    producer.start()

    assert producer.wait_exit() == 0
    assert consumer.wait_exit() == 0
    lab.assert_mirrored(consumer)


def test_no_progress_line_where_stderr_is_no_terminal(lab: Lab) -> None:
    lab.source().append_lines(10_000)
    producer, consumer = lab.pair("--once")
    producer.wait_exit()

    for agent in (producer, consumer):
        assert not set(agent.stderr()) & {"\r", "\x1b"}


@pytest.mark.parametrize("columns", (200, 40))
def test_a_progress_line_is_shown_on_a_terminal_and_gone_at_the_end(lab: Lab, columns: int) -> None:
    source = lab.source()
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True, start=False)
    consumer.start_on_terminal(columns)
    lab.producer(link.producers[0], "--rate", "20", "--compression", "none")
    source.append_lines(1)
    lab.wait_mirrored(consumer)
    source.append_lines(100_000)  # at 2.5 MB/s it lasts long enough to see a bar

    whole = r"1 nodes  1 streams  .*/s  behind .*  lost 0 B  \[#*\.*\] \d+%"
    line = re.compile(whole if columns == 200 else "1 nodes  1 streams  .*/s")
    lab.wait_until(lambda: any(line.search(shown) for shown in statuses(consumer)), "a progress line is shown")
    assert consumer.terminate() == 0
    assert max(map(len, statuses(consumer))) < columns

    on_screen = consumer.stderr().replace("\r\n", "\n").rpartition(ERASE)[2]
    assert "consumer ended" in on_screen and "behind" not in on_screen


ERASE = "\r\x1b[K"


def statuses(consumer: Agent) -> list[str]:
    """The progress lines that were shown and erased again."""
    return [shown.rpartition("\n")[2] for shown in consumer.stderr().split(ERASE)[:-1]]


# --- asking for settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", BOTH_PROGRAMS)
def test_help_names_every_flag(lab: Lab, program: str) -> None:
    done = lab.run(program, "--help")

    assert done.code == 0
    assert [flag for flag in FLAGS[program] if flag not in done.out] == []


@pytest.mark.parametrize("program", BOTH_PROGRAMS)
def test_version_is_one_line(lab: Lab, program: str) -> None:
    done = lab.run(program, "--version")

    assert done.code == 0
    assert program in done.out and len(done.out.splitlines()) == 1


@pytest.mark.parametrize(
    "program, arguments",
    (("fantail-producer", ("--rate", "50", "/var/log/*.log")), ("fantail-consumer", ("--topic", "web", "--sync", "7"))),
)
def test_check_accepts_a_good_command_line_and_starts_nothing(lab: Lab, program: str, arguments: tuple[str, ...]) -> None:
    port = lab.ports.take()
    with socket.create_server(("127.0.0.1", port)):
        done = lab.run(program, "--check", "--endpoint", f"tcp://127.0.0.1:{port}", *arguments)

    assert done.code == 0, done.err
    assert files_below(lab.state_of(f"run-{program}")) == []


@pytest.mark.parametrize("program, files", (("fantail-producer", ("/var/log/*.log",)), ("fantail-consumer", ())))
def test_check_refuses_a_mistake(lab: Lab, program: str, files: tuple[str, ...]) -> None:
    done = lab.run(program, "--check", "--transport", "pigeon", *files)

    assert done.code == 2
    assert "pigeon" in done.err


def test_printed_configuration_can_be_read_again(lab: Lab) -> None:
    """What is printed has the same meaning as the flags it came from."""
    flags = ("--topic", "web", "--topic", "db", "--sync", "7", "--name", "main", "--format", "{node} #; {line}")
    printed = lab.run("fantail-consumer", *flags, "--print-config")
    assert printed.code == 0
    file = lab.root / "consumer.ini"
    file.write_text(printed.out)

    again = lab.run("fantail-consumer", "--config", file, "--print-config")

    assert again.code == 0, again.err
    assert _settings(again.out) == _settings(printed.out)
    assert _settings(printed.out).issuperset({"topic=web", "topic=db", "sync=7", "name=main", "format={node} #; {line}"})


def test_flags_win_over_the_configuration_file(lab: Lab) -> None:
    file = lab.root / "producer.ini"
    file.write_text("rate=50\nnode=from-file\n")

    printed = lab.run("fantail-producer", "--config", file, "--node", "from-flag", "--print-config", "/var/log/*.log")

    assert printed.code == 0, printed.err
    assert _settings(printed.out).issuperset({"rate=50", "node=from-flag"})


def _settings(ini: str) -> set[str]:
    """name=value without blanks around them, comments and the name of the file they came from."""
    pairs = (line.partition("=") for line in ini.splitlines() if not line.startswith("#"))
    settings = {f"{name.strip()}={value.strip()}" for name, _, value in pairs if name.strip()}
    return {setting for setting in settings if not setting.startswith("config=")}
