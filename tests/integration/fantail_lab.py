"""The small language of the integration tests: start producers and consumers, disturb them, wait, compare.

Everything is a black box here: the programs' flags, outputs, exit codes and logs. Every wait polls a condition and has a
deadline. A test owns the processes it started and nothing else, and ends them by their own process handles.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import random
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fantail_sources import Source, describe_difference, files_below, kept_files, line_difference, same_files

T = TypeVar("T")

TIME_SCALE = float(os.environ.get("FANTAIL_TIME_SCALE", "1"))
"""How much slower than a release build the programs may be; sanitizer builds set it."""

DEADLINE = 40.0
"""Generous: it only says when to give up. What has to be fast is shown by benchmarks, or by `least_of_tries`."""

_POLL_SECONDS = 0.02
_STDERR_TAIL_LINES = 40
_SANITIZER_REPORT = re.compile(r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|: runtime error: ")

_LISTENING = re.compile(r"listening.*\bendpoint=(?P<endpoint>[^\s\"]+).*\bcontrol=(?P<control>[^\s\"]+)")

Argument = str | Path


def wait_until(
    condition: Callable[[], T], what: str, deadline: float = DEADLINE, explain: Callable[[], str] | None = None
) -> T:
    """Polls until the condition holds and returns its value. A file that is not there (yet) means that it does not hold."""
    limit = deadline * TIME_SCALE
    end = time.monotonic() + limit
    while True:
        with contextlib.suppress(FileNotFoundError):
            if value := condition():
                return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit:g} s: {what}" + (f"\n{explain()}" if explain else ""))
        time.sleep(_POLL_SECONDS)


def pace(seconds: float) -> None:
    """Lets a part of the scenario take its time (a partition, the moment of a kill). Never to let something settle."""
    time.sleep(seconds)


def least_of_tries(attempt: Callable[[], float], limit: float, what: str, tries: int = 3) -> None:
    """For the few promises that are about time: `attempt` disturbs and measures seconds, the least of a few tries counts.

    Another load on the machine makes one try slow; what the programs do wrong, they do in each.
    """
    measured: list[float] = []
    while len(measured) < tries:
        measured.append(attempt())
        if measured[-1] <= limit * TIME_SCALE:
            return
    raise AssertionError(f"{what}: not within {limit:g} s in {tries} tries, but {[round(m, 2) for m in measured]} s")


# --- where things run and how they meet --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A host as the tests see it: its address, the interface to it, and what runs a command there."""

    address: str
    interface: str
    prefix: tuple[str, ...] = ()


LOOPBACK = Place("127.0.0.1", "127.0.0.1")

NODES = ("alpha", "beta", "gamma")
CONSUMERS = ("one", "two")


@dataclass(frozen=True)
class Seat:
    """Where one program runs, and the flags that make it meet the others."""

    place: Place
    flags: tuple[str, ...]

    @property
    def endpoint(self) -> str:
        """The (first) data address in the flags."""
        return self.flags[self.flags.index("--endpoint") + 1]

    @property
    def control(self) -> str:
        """The control address that goes with it: the next port."""
        address, _, port = self.endpoint.rpartition(":")
        return f"{address}:{int(port) + 1}"


@dataclass(frozen=True)
class Link:
    """A transport with a seat for every program."""

    producers: tuple[Seat, ...]
    consumers: tuple[Seat, ...]
    group: tuple[str, int] = ("", 0)
    """The multicast address and port, where there is one."""


class PortPool:
    """Ports below the ephemeral range, reserved against other test processes by lock files."""

    _FIRST = 10_000

    def __init__(self) -> None:
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        self._last = min(low, 32_768) - 1
        self._locks_in = Path(tempfile.gettempdir()) / f"fantail-test-ports-{os.getuid()}"
        self._locks_in.mkdir(exist_ok=True)
        self._locks: list[int] = []

    def take(self, count: int = 2) -> int:
        """The first of `count` adjacent ports that nobody uses, ours until the test process ends."""
        for _ in range(200):
            first = random.randrange(self._FIRST, self._last - count)
            if all(self._reserve(port) for port in range(first, first + count)):
                return first
        raise AssertionError("no free ports found")

    def _reserve(self, port: int) -> bool:
        lock = try_lock(self._locks_in / str(port))
        if lock is None:
            return False
        self._locks.append(lock)
        return port_is_free(port)


def port_is_free(port: int, address: str = "127.0.0.1") -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True


def try_lock(path: Path) -> int | None:
    """An open, locked descriptor; None when somebody else holds the lock. It ends with the process."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def replace_flag(flags: Sequence[str], flag: str, value: Argument) -> list[str]:
    """The flags with another value for (the first use of) one of them."""
    at = flags.index(flag) + 1
    return [*flags[:at], str(value), *flags[at + 1 :]]


# --- processes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finished:
    """What a program left behind that ran to its end."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Folders:
    """Where a program keeps its state and outputs, and where the test keeps what it printed."""

    own: Path
    logs: Path


class Agent:
    """One program with its flags; started, disturbed and started again under the same name and state directory."""

    may_end = False
    """It may end by itself."""

    def __init__(
        self, name: str, command: Sequence[str], flags: Sequence[Argument], folders: Folders, environment: dict[str, str]
    ) -> None:
        self.name = name
        self.folder = folders.own
        self.flags = [str(flag) for flag in flags]
        self._command = list(command)
        self._environment = environment
        self._out = folders.logs / f"{name}.out"
        self._err = folders.logs / f"{name}.err"
        self._process: subprocess.Popen[bytes] | None = None
        self._children = ChildHandles()
        self._must_live = False
        self._terminal: threading.Thread | None = None

    def set_environment(self, variables: dict[str, str]) -> None:
        """For the program alone, not for what brings it to its place; from the next start on."""
        self._command[-1:] = ["env", *(f"{name}={value}" for name, value in variables.items()), self._command[-1]]

    def start(self, *more_flags: Argument) -> None:
        """Starts it, also after an earlier run; `more_flags` are for this run only."""
        with self._err.open("ab") as err:
            self._start(more_flags, err.fileno())

    def start_on_terminal(self, columns: int) -> None:
        """The same, with a terminal as its standard error: stderr() is what was sent to the screen."""
        ours, its = pty.openpty()
        termios.tcsetwinsize(its, (24, columns))
        self._terminal = threading.Thread(target=_record, args=(ours, self._err), daemon=True)
        self._terminal.start()
        try:
            self._start((), its)
        finally:
            os.close(its)

    def _start(self, more_flags: Sequence[Argument], err: int) -> None:
        assert not self.alive, f"{self.name} runs already"
        flags = [*self.flags, *map(str, more_flags)]
        with self._out.open("ab") as out:
            self._process = subprocess.Popen(
                [*self._command, *flags], stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=self._environment
            )
        self._must_live = not self.may_end and not {"--once", "--idle-exit"} & set(flags)

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def has_died(self) -> bool:
        """It ended although nobody told it to."""
        return self._must_live and not self.alive

    def children(self) -> list[int]:
        """Process ids of its children and theirs (on epgm: the relay)."""
        return descendants(self.pid)

    def kill9(self) -> None:
        """Kills the program itself; what it started has to notice."""
        self._must_live = False
        self._children.remember(self.children())
        self._running.kill()
        self._running.wait()

    def kill9_children(self) -> None:
        """Kills what the program started, and leaves the program."""
        children = self.children()
        assert children, f"{self.name} has no child process"
        for pid in children:
            os.kill(pid, signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP for the program and its children."""
        for pid in (self.pid, *self.children()):
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in (*self.children(), self.pid):
            with contextlib.suppress(ProcessLookupError):  # a program that is to end may have ended its children by now
                os.kill(pid, signal.SIGCONT)

    def terminate(self, deadline: float = DEADLINE) -> int:
        """Asks it to end (SIGTERM); its exit code."""
        self.ask_to_end()
        return self.wait_exit(deadline)

    def ask_to_end(self) -> None:
        """SIGTERM, and does not wait."""
        self._must_live = False
        self._children.remember(self.children())
        self._running.terminate()

    def wait_exit(self, deadline: float = DEADLINE) -> int:
        self._must_live = False
        try:
            code = self._running.wait(deadline * TIME_SCALE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not within {deadline:g} s: {self.name} ends") from None
        if self._terminal is not None:
            self._terminal.join()  # all that was written to it is on record
        return code

    def wait_children_gone(self, deadline: float = DEADLINE) -> None:
        """After its end: nothing it had started is left."""
        wait_until(self._children.gone, f"the child processes of {self.name} end", deadline)

    def end(self) -> None:
        """For the end of a test: no trace of the program is left running."""
        if self.alive:
            self.kill9()
        self._children.kill()

    def stdout(self) -> bytes:
        return self._out.read_bytes() if self._out.exists() else b""

    def lines(self) -> list[bytes]:
        """The complete lines on its standard output, without their ends."""
        return self.stdout().split(b"\n")[:-1]

    def stderr(self) -> str:
        return self._err.read_bytes().decode(errors="replace") if self._err.exists() else ""

    def report(self) -> str:
        """For a failed test: how it was started, how it is, and the last of what it logged."""
        state = "never started"
        if self._process is not None:
            code = self._process.poll()
            state = f"pid {self._process.pid}, " + ("running" if code is None else f"ended with {code}")
        tail = self.stderr().splitlines()[-_STDERR_TAIL_LINES:]
        return "\n".join([f"$ {shlex.join([*self._command, *self.flags])}", f"({state})", *tail])

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.name} was not started"
        return self._process


class Consumer(Agent):
    """fantail-consumer with the places its outputs go to."""

    @property
    def mirror(self) -> Path:
        return self.folder / "out" / "mirror"

    @property
    def merged(self) -> Path:
        return self.folder / "out" / "merged.log"

    def mirrored(self, source: Source) -> Path:
        """Where the live stream of a source's path is mirrored."""
        return self.mirror / source.node / str(source.path).lstrip("/")

    def older(self, source: Source) -> list[Path]:
        """The mirrors of earlier streams of that path."""
        live = self.mirrored(source)
        return sorted(live.parent.glob(f"{live.name}@*"))

    def merged_lines(self) -> list[bytes]:
        """The complete lines of the merged file, without their ends."""
        return self.merged.read_bytes().split(b"\n")[:-1] if self.merged.exists() else []


class ChildHandles:
    """Processes that a program of ours started, held by handles that cannot come to mean another process."""

    def __init__(self) -> None:
        self._handles: list[int] = []

    def remember(self, pids: Iterable[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                self._handles.append(os.pidfd_open(pid))

    def gone(self) -> bool:
        self._handles = [handle for handle in self._handles if not _close_if_ended(handle)]
        return not self._handles

    def kill(self) -> None:
        for handle in self._handles:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        wait_until(self.gone, "killed child processes end")


def _record(terminal: int, path: Path) -> None:
    """Appends what is written to a terminal to a file, until the last who has it open ends."""
    with os.fdopen(terminal, "rb", buffering=0) as screen, path.open("ab", buffering=0) as record:
        with contextlib.suppress(OSError):  # a terminal without writers answers with EIO
            while data := screen.read(4096):
                record.write(data)


def _close_if_ended(handle: int) -> bool:
    ended = bool(select.select([handle], [], [], 0)[0])
    if ended:
        os.close(handle)
    return ended


def descendants(pid: int) -> list[int]:
    """All processes below one, parents before children."""
    children: dict[int, list[int]] = {}
    # Not by glob(): it asks for each file, and a process may end meanwhile.
    for stat in [Path("/proc", pid, "stat") for pid in os.listdir("/proc") if pid.isdigit()]:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # "pid (name) state parent ...", where the name may hold anything
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found[1:]


AgentKind = TypeVar("AgentKind", bound=Agent)


# --- the lab -----------------------------------------------------------------------------------------------------------


class Lab:
    """What one test works with: a folder of its own, a seed, source files, and the programs it started."""

    def __init__(self, bin_dir: Path, ports: PortPool, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.ports = ports
        self.sources: list[Source] = []
        self.agents: list[Agent] = []
        # Short, because the address of a local socket below it has room for 107 characters; real, as paths in mirrors are.
        self.root = Path(tempfile.mkdtemp(prefix="ft-")).resolve()
        self.cleanup = contextlib.ExitStack()
        self.bin_dir = bin_dir

    # sources

    def source(self, name: str = "app.log", node: str = "alpha") -> Source:
        """A file that does not exist until something is written to it."""
        return self.source_at(self.files_of(node) / name, node)

    def source_at(self, path: Path, node: str = "alpha") -> Source:
        """The same, at a path of its own."""
        source = Source(path, self.root / "kept" / node / path.parent.relative_to(path.anchor), node)
        self.sources.append(source)
        return source

    def files_of(self, node: str) -> Path:
        """The folder of a node's files."""
        return self._folder(f"src/{node}")

    # links

    def link(self, kind: str, producers: Sequence[Place] = (LOOPBACK,), consumers: Sequence[Place] = (LOOPBACK,)) -> Link:
        """The flags of a topology: tcp, tcp-bind (producers bind), ipc or epgm."""
        builders = {"tcp": self._tcp, "tcp-bind": self._tcp_bind, "ipc": self._ipc, "epgm": self._epgm}
        return builders[kind](producers, consumers)

    def _tcp(self, producers: Sequence[Place], consumers: Sequence[Place]) -> Link:
        return _consumers_bind(producers, consumers, [f"tcp://{p.address}:{self.ports.take()}" for p in consumers])

    def _ipc(self, producers: Sequence[Place], consumers: Sequence[Place]) -> Link:
        sockets = self._folder("ipc")
        return _consumers_bind(producers, consumers, [f"ipc://{sockets}/{i}" for i in range(len(consumers))])

    def _tcp_bind(self, producers: Sequence[Place], consumers: Sequence[Place]) -> Link:
        addresses = [f"tcp://{place.address}:{self.ports.take()}" for place in producers]
        connect = tuple(flag for address in addresses for flag in ("--connect", address))
        return Link(
            tuple(Seat(place, ("--bind", "--endpoint", address)) for place, address in zip(producers, addresses)),
            tuple(Seat(place, connect) for place in consumers),
        )

    def _epgm(self, producers: Sequence[Place], consumers: Sequence[Place]) -> Link:
        group = f"239.192.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
        port = self.ports.take(1)
        common = ("--transport", "epgm", "--group", group, "--port", str(port))

        def seats(places: Sequence[Place]) -> tuple[Seat, ...]:
            return tuple(Seat(place, (*common, "--interface", place.interface)) for place in places)

        return Link(seats(producers), seats(consumers), (group, port))

    # programs

    def producer(
        self, seat: Seat, *flags: Argument, node: str = "alpha", globs: Sequence[Argument] = (), start: bool = True
    ) -> Agent:
        """A producer of that node; without globs it takes all files in the node's folder."""
        name = f"producer-{node}"
        globs = globs or (f"{self.files_of(node)}/*",)
        arguments = (*seat.flags, "--node", node, "--state-dir", self.state_of(name), *flags, *globs)
        return self._add(Agent(name, self._command(seat.place, "fantail-producer"), arguments, *self._for(name)), start)

    def consumer(
        self,
        seat: Seat,
        *flags: Argument,
        name: str = "main",
        durable: bool = True,
        mirror: bool = False,
        merged: bool = False,
        since: str = "beginning",
        start: bool = True,
    ) -> Consumer:
        """A consumer that commits under that name; with neither `mirror` nor `merged` (nor another --output) it prints lines.

        Not `durable`: it has no name, and one that prints lines then commits nothing.
        """
        agent_name = f"consumer-{name}"
        known_as = ("--name", name) if durable else ()
        arguments = (*seat.flags, *known_as, "--state-dir", self.state_of(agent_name), "--from", since, *flags)
        consumer = Consumer(agent_name, self._command(seat.place, "fantail-consumer"), arguments, *self._for(agent_name))
        outputs = {f"mirror:{consumer.mirror}": mirror, f"file:{consumer.merged}": merged}
        for output in (output for output, wanted in outputs.items() if wanted):
            consumer.flags += ["--output", output]
        return self._add(consumer, start)

    def bare(self, program: str, *arguments: Argument, name: str = "", place: Place = LOOPBACK) -> Agent:
        """A program with these arguments and no others, not started yet. Its state directory comes from the environment."""
        name = name or program
        folders, environment = self._for(name)
        environment["STATE_DIRECTORY"] = str(self.state_of(name))
        return self._add(Agent(name, self._command(place, program), arguments, folders, environment), start=False)

    def pair(self, *producer_flags: Argument, mirror: bool = True, merged: bool = False) -> tuple[Agent, Consumer]:
        """The usual case: one producer and one consumer on this host over tcp."""
        link = self.link("tcp")
        consumer = self.consumer(link.consumers[0], mirror=mirror, merged=merged)
        return self.producer(link.producers[0], *producer_flags), consumer

    def party(self, link: Link, start_consumers: int | None = None) -> tuple[list[Agent], list[Consumer]]:
        """A producer of a node of its own on each producers' seat, a consumer with both outputs on each consumers' seat.

        The consumers after the first `start_consumers` are left to be started by the test.
        """
        consumers = [
            self.consumer(seat, name=name, mirror=True, merged=True, start=start_consumers is None or i < start_consumers)
            for i, (seat, name) in enumerate(zip(link.consumers, CONSUMERS))
        ]
        return [self.producer(seat, node=node) for seat, node in zip(link.producers, NODES)], consumers

    def run(
        self, program: str, *arguments: Argument, deadline: float = DEADLINE, stdin: bytes | None = None
    ) -> Finished:
        """Runs a program that is expected to end by itself."""
        environment = self._environment() | {"STATE_DIRECTORY": str(self.state_of(f"run-{program}"))}
        command = [*self._command(LOOPBACK, program), *map(str, arguments)]
        try:
            given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
            done = subprocess.run(
                command, capture_output=True, env=environment, timeout=deadline * TIME_SCALE, **given
            )
        except subprocess.TimeoutExpired as still_running:
            said = (still_running.stderr or b"").decode(errors="replace")
            raise AssertionError(f"not within {deadline:g} s: {shlex.join(command)} ends\n{said}") from None
        return Finished(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def state_of(self, agent_name: str) -> Path:
        return self._folder(f"{agent_name}/state")

    # waiting and comparing

    def wait_until(
        self,
        condition: Callable[[], T],
        what: str,
        deadline: float = DEADLINE,
        explain: Callable[[], str] | None = None,
    ) -> T:
        """Like the function, and ends at once when a program died that should be running."""

        def guarded() -> T:
            self.assert_alive()
            return condition()

        return wait_until(guarded, what, deadline, explain)

    def assert_alive(self) -> None:
        died = [agent.report() for agent in self.agents if agent.has_died]
        assert not died, "ended although nobody told it to:\n" + "\n".join(died)

    def wait_mirrored(self, *consumers: Consumer, deadline: float = DEADLINE) -> None:
        """Every incarnation of every source is in each consumer's mirror, byte for byte, and nothing else is."""
        for consumer in consumers:
            for node, kept in self._kept_by_node().items():
                self.wait_until(
                    lambda: same_files(kept, files_below(consumer.mirror / node)),
                    f"{consumer.name} mirrors everything of {node}",
                    deadline,
                    lambda: describe_difference(kept, files_below(consumer.mirror / node)),
                )

    def assert_mirrored(self, consumer: Consumer) -> None:
        """The same, without waiting."""
        for node, kept in self._kept_by_node().items():
            mirrored = files_below(consumer.mirror / node)
            assert same_files(kept, mirrored), describe_difference(kept, mirrored)

    def wait_merged(
        self, *consumers: Consumer, sources: Sequence[Source] | None = None, deadline: float = DEADLINE
    ) -> None:
        """Every line of the sources (all, unless some are named) is in each consumer's merged file exactly once, nothing
        else is, and the lines of one incarnation are in order."""
        kept = kept_files(self.sources if sources is None else sources)
        expected = sum(path.stat().st_size for path in kept)

        def difference(consumer: Consumer) -> str:
            return line_difference(kept, consumer.merged.read_bytes() if consumer.merged.exists() else b"")

        for consumer in consumers:
            # After a kill the file may be as long as it is to be, until what was not committed is cut off again.
            self.wait_until(
                lambda: consumer.merged.stat().st_size == expected and not difference(consumer),
                f"{consumer.name} has all {expected} bytes of lines",
                deadline,
                lambda: difference(consumer) or "the same lines, but another number of bytes",
            )

    def wait_line(self, consumer: Consumer, line: bytes, deadline: float = DEADLINE) -> None:
        """The merged file shows this line (given without its end)."""
        self.wait_until(lambda: line in consumer.merged_lines(), f"{consumer.name} shows {line!r}", deadline)

    def wait_flow(self, consumer: Consumer, source: Source, deadline: float = DEADLINE) -> None:
        """More of a source that is being written to arrives from now on."""
        mirror = consumer.mirrored(source)
        had = mirror.stat().st_size if mirror.exists() else 0
        self.wait_until(lambda: mirror.stat().st_size > had, f"more of {source.path} reaches {consumer.name}", deadline)

    def time_until_flow(self, consumer: Consumer, *sources: Source) -> float:
        """How many seconds pass until more of each of these has arrived."""
        begin = time.monotonic()
        for source in sources:
            self.wait_flow(consumer, source)
        return time.monotonic() - begin

    def listening(self, agent: Agent) -> tuple[str, str]:
        """The data and control address that a program says it was given."""
        found = self.wait_until(lambda: _LISTENING.search(agent.stderr()), f"{agent.name} says where it listens")
        return found["endpoint"], found["control"]

    # the end

    def assert_clean(self) -> None:
        """What no test may leave behind: programs that died unasked, reports of sanitizers."""
        self.assert_alive()
        reported = [agent.report() for agent in self.agents if _SANITIZER_REPORT.search(agent.stderr())]
        assert not reported, "a sanitizer reported:\n" + "\n".join(reported)

    def close(self) -> None:
        """Ends the programs first, then takes down what they stood on."""
        with contextlib.ExitStack() as last_to_first:
            if not os.environ.get("FANTAIL_KEEP"):
                last_to_first.callback(shutil.rmtree, self.root, ignore_errors=True)
            last_to_first.push(self.cleanup)
            for closable in (*(source.close for source in self.sources), *(agent.end for agent in self.agents)):
                last_to_first.callback(closable)

    # details

    def _kept_by_node(self) -> dict[str, list[Path]]:
        nodes = sorted({source.node for source in self.sources})
        return {node: kept_files(s for s in self.sources if s.node == node) for node in nodes}

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _command(self, place: Place, program: str) -> list[str]:
        return [*place.prefix, str(self.bin_dir / program)]

    def _for(self, agent_name: str) -> tuple[Folders, dict[str, str]]:
        return Folders(self._folder(agent_name), self._folder("log")), self._environment()

    def _environment(self) -> dict[str, str]:
        ours = {"HOME": str(self._folder("home")), "LANG": "C.UTF-8"}
        foreign = ("XDG_", "FANTAIL_", "STATE_DIRECTORY")
        return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | ours

    def _add(self, agent: AgentKind, start: bool) -> AgentKind:
        self.agents.append(agent)
        if start:
            agent.start()
        return agent


def _consumers_bind(producers: Sequence[Place], consumers: Sequence[Place], addresses: Sequence[str]) -> Link:
    everywhere = tuple(flag for address in addresses for flag in ("--endpoint", address))
    return Link(
        tuple(Seat(place, everywhere) for place in producers),
        tuple(Seat(place, ("--endpoint", address)) for place, address in zip(consumers, addresses)),
    )
