"""The language of the tests of fantail-state: servers, commands, watchers in the background, and a client of a few lines.

The client speaks docs/protocol.md by itself: with it a test makes thousands of requests, says what no command says, and
knows of each request whether it was acknowledged, refused, or has an unknown outcome because the server was killed.

    /usr/bin/python3 fantail_statelab.py ADDRESS METHOD ARGUMENTS COUNT

makes COUNT requests, one after the other, prints "done" and stays: a client on another host, or one to be killed.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import pytest
import xxhash
import zmq
from flatbuffers import number_types
from flatbuffers.table import Table

from fantail_lab import (
    DEADLINE,
    LOOPBACK,
    TIME_SCALE,
    Agent,
    Argument,
    Finished,
    Folders,
    Lab,
    Place,
    wait_until,
)

PROGRAM = "fantail-state"

# Exit codes of the commands.
OK = 0
FALSE = 1
USAGE = 2
TIMEOUT = 3
UNREACHABLE = 4

CHUNKS_OF_STATE = b"d/state/"
BEACONS = b"b/"

Json = Any


# --- messages, as docs/protocol.md has them ----------------------------------------------------------------------------

CHUNK, BEACON = 1, 2
HELLO, WELCOME, PING, PONG, BYE, ERROR = 16, 17, 25, 26, 27, 28
REQUEST, REPLY, FAILURE = 32, 33, 34
ROLE_CLIENT = 2
MAJOR = 1


def digest(data: bytes) -> bytes:
    return struct.pack("<Q", xxhash.xxh3_64_intdigest(data))


def to_header(kind: int, body: bytes, payload: bytes = b"", major: int = MAJOR) -> bytes:
    start = b"FNTL" + bytes([major, kind, 0, 0])
    return start + digest(start + body + payload) + body


def open_header(frame: bytes, payload: bytes, topic: bytes = b"") -> tuple[int, bytes]:
    """The kind and the body of a message that is whole."""
    assert frame[:4] == b"FNTL", f"no fantail message: {frame[:16]!r}"
    assert frame[8:16] == digest(topic + frame[:8] + frame[16:] + payload), "the digest differs"
    return frame[5], frame[16:]


class Body:
    """Writes one table: the fields in the order of the schema, None for one that is left out."""

    _SLOTS = {
        "u8": "PrependUint8Slot",
        "u16": "PrependUint16Slot",
        "u32": "PrependUint32Slot",
        "u64": "PrependUint64Slot",
    }

    @classmethod
    def of(cls, *fields: tuple[str, Any] | None) -> bytes:
        builder = flatbuffers.Builder(256)
        texts = {slot: builder.CreateString(f[1]) for slot, f in enumerate(fields) if f is not None and f[0] == "text"}
        builder.StartObject(len(fields))
        for slot, field in enumerate(fields):
            if field is None:
                continue
            kind, value = field
            if kind == "text":
                builder.PrependUOffsetTRelativeSlot(slot, texts[slot], 0)
            elif kind == "id":
                builder.Prep(8, 16)
                builder.PrependUint64(int.from_bytes(value[8:], "big"))
                builder.PrependUint64(int.from_bytes(value[:8], "big"))
                builder.PrependStructSlot(slot, builder.Offset(), 0)
            else:
                getattr(builder, cls._SLOTS[kind])(slot, value, 0)
        builder.Finish(builder.EndObject())
        return bytes(builder.Output())


class Read:
    """Reads one table by the numbers of its fields."""

    def __init__(self, body: bytes) -> None:
        self._table = Table(body, struct.unpack_from("<I", body)[0])

    def number(self, slot: int, flags: Any = number_types.Uint64Flags) -> int:
        at = self._table.Offset(4 + 2 * slot)
        return int(self._table.Get(flags, at + self._table.Pos)) if at else 0

    def text(self, slot: int) -> str:
        at = self._table.Offset(4 + 2 * slot)
        return self._table.String(at + self._table.Pos).decode() if at else ""


# --- a client ----------------------------------------------------------------------------------------------------------


class Refused(Exception):
    """The server answered with a failure."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Unknown(Exception):
    """The server went away before it answered: the request took effect or it did not."""


class Client:
    """One client on one thread, with one request at a time.

    `run` tells which run of the server there is. When that changes while an answer is awaited, none will come.
    """

    def __init__(self, address: str, run: Callable[[], int] = lambda: 0, major: int = MAJOR) -> None:
        self._address = address
        self._run = run
        self._major = major
        self._socket: zmq.Socket[bytes] | None = None
        self._greeted = -1
        self._number = 0

    def call(self, method: str, **arguments: Json) -> Json:
        """The result. Raises Refused or Unknown. Never repeats a request."""
        payload = json.dumps(arguments).encode()
        return self.call_text(method, payload)

    def call_text(self, method: str, payload: bytes) -> Json:
        if self._socket is None or self._greeted != self._run():
            self._greet()
        self._number += 1
        body = Body.of(("u64", self._number), ("text", method), ("u32", 0), ("u32", len(payload)))
        self._send(REQUEST, body, payload)
        return json.loads(self._answer(method))

    def answer_to(self, method: str, payload: bytes = b"{}", size: int | None = None) -> bytes:
        """To a request in which the method or the size may be wrong; waits for seconds only."""
        if self._socket is None:
            self._greet()
        self._number += 1
        told = len(payload) if size is None else size
        self._send(REQUEST, Body.of(("u64", self._number), ("text", method), ("u32", 0), ("u32", told)), payload)
        return self._answer(method, 5)

    def items(self, prefix: str = "", **more: Json) -> dict[str, Json]:
        """All keys that begin so; asks as often as it takes."""
        while True:
            try:
                return self.call("items", prefix=prefix, **more)["value"]
            except Unknown:
                continue

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close(0)
            self._socket = None

    def greet(self) -> tuple[int, bytes]:
        """Says Hello on a new connection; what is answered."""
        self.close()
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self._socket.connect(self._address)
        name = os.urandom(16)
        who = (("text", "statelab"), ("id", name), None, ("text", "test"))
        peer = (("u8", ROLE_CLIENT), ("u16", self._major), None, *who)
        run = self._run()
        end = time.monotonic() + DEADLINE * TIME_SCALE
        while time.monotonic() < end:
            self._send(HELLO, Body.of(*peer))
            said_again = time.monotonic() + 1
            while time.monotonic() < said_again and self._run() == run:
                if self._socket.poll(20):
                    kind, body, _ = self._receive()
                    self._greeted = run
                    return kind, body
            run = self._run()
        raise AssertionError(f"nobody answers Hello at {self._address}")

    def _greet(self) -> None:
        kind, body = self.greet()
        while kind == ERROR:  # it met something of before
            kind, body = self.greet()
        assert kind == WELCOME, f"Hello was answered with kind {kind}: {body!r}"

    def _answer(self, method: str, deadline: float = DEADLINE) -> bytes:
        assert self._socket is not None
        parts: list[bytes] = []
        end = time.monotonic() + deadline * TIME_SCALE
        while time.monotonic() < end:
            if not self._socket.poll(20):
                if self._greeted != self._run():
                    raise Unknown(method)
                continue
            kind, body, payload = self._receive()
            if kind in (ERROR, BYE):
                self.close()
                raise Unknown(method)
            if kind == PING:
                self._send(PONG, body)
            if kind not in (REPLY, FAILURE):
                continue
            fields = Read(body)
            if fields.number(0) != self._number:
                continue
            if kind == FAILURE:
                raise Refused(fields.text(1), fields.text(2))
            assert fields.number(1, number_types.Uint32Flags) == len(parts), "pieces of an answer are in order"
            parts.append(payload)
            if not fields.number(2, number_types.BoolFlags):
                return payload
        raise AssertionError(f"no answer to {method!r} from {self._address} within {deadline:g} s")

    def _send(self, kind: int, body: bytes, payload: bytes = b"") -> None:
        assert self._socket is not None
        self._socket.send_multipart([to_header(kind, body, payload, self._major), payload])

    def _receive(self) -> tuple[int, bytes, bytes]:
        assert self._socket is not None
        header, payload = self._socket.recv_multipart()
        return (*open_header(header, payload), payload)


class Subscription:
    """Hears what a server publishes, message by message: a bare SUB socket."""

    def __init__(self, address: str) -> None:
        self._socket = zmq.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        for topic in (CHUNKS_OF_STATE, BEACONS):  # in this order: who hears a beacon hears chunks
            self._socket.setsockopt(zmq.SUBSCRIBE, topic)
        self._socket.connect(address)

    def until_beacons(self, count: int = 1, after: int = 0) -> list[bytes]:
        """The payloads of the chunks that come before so many beacons, those not counted that come before `after` chunks."""
        chunks: list[bytes] = []
        end = time.monotonic() + DEADLINE * TIME_SCALE
        while count > 0:
            assert self._socket.poll(max(0, int((end - time.monotonic()) * 1000))), "no beacon came"
            topic, header, payload = self._socket.recv_multipart()
            kind, _ = open_header(header, payload, topic)
            if kind == BEACON:
                count -= len(chunks) >= after
            else:
                assert (kind, topic) == (CHUNK, CHUNKS_OF_STATE)
                chunks.append(payload)
        return chunks

    def close(self) -> None:
        self._socket.close()


# --- programs in the background ----------------------------------------------------------------------------------------


class Server(Agent):
    """fantail-state serve; killed and started again at the same address with the same state directory."""

    address = ""
    state_dir = Path()
    runs = 0
    """How many runs have ended: who asked an earlier one gets no answer any more."""

    _started = 0

    def start(self, *more_flags: Argument) -> None:
        super().start(*more_flags)
        self._started += 1

    def kill9(self) -> None:
        super().kill9()
        self.runs += 1

    def terminate(self, deadline: float = DEADLINE) -> int:
        code = super().terminate(deadline)
        self.runs += 1
        return code

    def is_up(self) -> bool:
        return self.stderr().count("state server started") >= self._started

    def restart(self) -> None:
        """kill -9, and another run, which is up when this returns."""
        self.kill9()
        self.start()
        wait_until(self.is_up, f"{self.name} is up again", explain=self.report)

    def compactions(self) -> int:
        return self.stderr().count("journal compacted")


class Background(Agent):
    """Any other command of fantail-state, or a program beside it, that a test does not wait for."""


class Watcher(Background):
    """fantail-state watch or wait."""

    def count(self) -> int:
        """How many events it has printed."""
        return self.stdout().count(b"\n")

    def events(self) -> list[Json]:
        return [json.loads(line) for line in self.lines()]

    def revisions(self) -> list[int]:
        return [event["revision"] for event in self.events()]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- the lab -----------------------------------------------------------------------------------------------------------


class StateLab:
    """What a test of fantail-state works with. Without a `server` its first one is meant."""

    def __init__(self, lab: Lab, bin_dir: Path) -> None:
        self.lab = lab
        self.servers: list[Server] = []
        self._program = str(bin_dir / PROGRAM)
        self._names: dict[str, int] = {}
        self._clients: list[Client | Subscription] = []
        self._lock = threading.Lock()
        lab.cleanup.callback(self.close)

    # programs

    def server(
        self,
        *flags: Argument,
        kind: str = "tcp",
        place: Place = LOOPBACK,
        state_dir: Path | None = None,
        start: bool = True,
    ) -> Server:
        """A server at a free address, with its own state or that of one that has ended; it is up when this returns."""
        name = self._name("server")
        address = {
            "tcp": lambda: f"tcp://{place.address}:{self.lab.ports.take(4)}",
            "ipc": lambda: f"ipc://{self.lab.root}/{name}.ipc",
        }[kind]()
        state_dir = state_dir or self.lab.state_of(name)
        arguments = ("serve", "--endpoint", address, "--state-dir", state_dir, *flags)
        server = Server(name, [*place.prefix, self._program], arguments, self._folders(name), self._environment())
        server.address = address
        server.state_dir = state_dir
        self.servers.append(server)
        self.lab.agents.append(server)
        if start:
            server.start()
            self.lab.wait_until(server.is_up, f"{name} is up", explain=server.report)
        return server

    def watch(
        self,
        *arguments: Argument,
        command: str = "watch",
        server: Server | None = None,
        place: Place = LOOPBACK,
        may_end: bool = False,
    ) -> Watcher:
        """A watcher in the background. With `--from` it misses nothing, however long its start takes."""
        flags = (command, "--server", self._address(server), *arguments)
        name = self._name(command)
        watcher = Watcher(name, [*place.prefix, self._program], flags, self._folders(name), self._environment())
        ends = command == "wait" or bool({"--count", "--timeout"} & {str(a) for a in arguments})
        watcher.may_end = may_end or ends
        return self._add(watcher)

    def background(self, command: str, *arguments: Argument, server: Server | None = None) -> Background:
        """A command that goes on running."""
        flags = (command, "--server", self._address(server), *arguments)
        name = self._name(command)
        return self._add(Background(name, [self._program], flags, self._folders(name), self._environment()))

    def other_client(
        self, method: str, arguments: Json, count: int = 1, server: Server | None = None, place: Place = LOOPBACK
    ) -> Background:
        """A client in a process of its own, perhaps on another host; it has made its requests when it prints "done"."""
        name = self._name("client")
        flags = (self._address(server), method, json.dumps(arguments), count)
        command = [*place.prefix, "/usr/bin/python3", str(Path(__file__).resolve())]
        return self._add(Background(name, command, flags, self._folders(name), self._environment()))

    def shell(self, script: str, server: Server | None = None) -> Background:
        """A shell script in which $STATE is the program, and that finds the server by itself."""
        name = self._name("shell")
        environment = self._environment() | {"STATE": self._program, "FANTAIL_STATE": self._address(server)}
        agent = Background(name, ["/bin/sh", "-ec"], [script], self._folders(name), environment)
        agent.may_end = True
        return self._add(agent)

    def run(
        self,
        command: str,
        *arguments: Argument,
        server: Server | str | None = None,
        stdin: str | bytes = b"",
        deadline: float = DEADLINE,
        environment: dict[str, str] | None = None,
        memory_mib: int | None = None,
    ) -> Finished:
        """Runs a command to its end. With `environment` the server is not named by a flag."""
        address = [] if environment is not None else ["--server", self._address(server)]
        limit = ["prlimit", f"--data={memory_mib << 20}"] if memory_mib is not None else []
        program = [*limit, self._program]
        line = [*program, *([command] if command else []), *(address if command else []), *map(str, arguments)]
        try:
            done = subprocess.run(
                line,
                input=stdin.encode() if isinstance(stdin, str) else stdin,
                capture_output=True,
                env=self._environment() | (environment or {}),
                timeout=deadline * TIME_SCALE,
            )
        except subprocess.TimeoutExpired as still_running:
            said = (still_running.stderr or b"").decode(errors="replace")
            raise AssertionError(f"not within {deadline:g} s: {shlex.join(line)} ends\n{said}") from None
        return Finished(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def serve(self, *flags: Argument) -> Finished:
        """A server that is expected not to start."""
        state = self.lab.state_of(self._name("refused"))
        own_state = [] if "--state-dir" in flags else ["--state-dir", str(state)]
        line = [self._program, "serve", *own_state, *map(str, flags)]
        done = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=self._environment(), timeout=DEADLINE
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    # short forms

    def done(self, command: str, *arguments: Argument, stdin: str | bytes = b"", server: Server | None = None) -> Json:
        """Runs a command that must succeed; what it printed, as JSON, or None."""
        finished = self.run(command, *arguments, stdin=stdin, server=server)
        assert finished.code == OK, f"{command} {arguments}: {finished}"
        assert finished.err == "", f"{command} {arguments}: {finished}"
        return json.loads(finished.out) if finished.out else None

    def set(self, key: str, value: Json, *flags: Argument) -> None:
        assert self.done("set", *flags, key, json.dumps(value)) is None

    def items(self, name_space: str = "default", server: Server | None = None) -> dict[str, Json]:
        return self.done("dump", "--namespace", name_space, server=server)

    def revision(self, server: Server | None = None) -> int:
        return self.done("info", server=server)["revision"]

    def client(self, server: Server | None = None) -> Client:
        """For one thread."""
        server = server or self.servers[0]
        return self._keep(Client(server.address, lambda: server.runs))

    def subscription(self, server: Server | None = None) -> Subscription:
        return self._keep(Subscription(self.done("info", server=server)["publish"]))

    def history(self, server: Server | None = None) -> list[Json]:
        """Every change from the beginning, as a watcher of all of one namespace sees it."""
        count = self.revision(server)
        if count == 0:
            return []
        finished = self.run("watch", "--from", "beginning", "--identical", "--count", count, server=server)
        assert finished.code == OK, finished.err
        return [json.loads(line) for line in finished.out.splitlines()]

    def wait_events(self, watcher: Watcher, count: int, deadline: float = DEADLINE) -> list[Json]:
        """The first `count` events of a watcher."""
        self.lab.wait_until(
            lambda: watcher.count() >= count,
            f"{watcher.name} prints {count} events",
            deadline,
            lambda: f"it has printed {watcher.count()}\n{watcher.report()}",
        )
        return watcher.events()[:count]

    # details

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def _keep(self, client: Any) -> Any:
        with self._lock:
            self._clients.append(client)
        return client

    def _address(self, server: Server | str | None) -> str:
        if isinstance(server, str):
            return server
        return (server or self.servers[0]).address

    def _name(self, kind: str) -> str:
        self._names[kind] = self._names.get(kind, 0) + 1
        return f"{kind}-{self._names[kind]}"

    def _folders(self, name: str) -> Folders:
        own, logs = self.lab.root / name, self.lab.root / "log"
        for folder in (own, logs):
            folder.mkdir(parents=True, exist_ok=True)
        return Folders(own, logs)

    def _environment(self) -> dict[str, str]:
        foreign = ("XDG_", "FANTAIL_", "STATE_DIRECTORY")
        ours = {"HOME": str(self.lab.root), "LANG": "C.UTF-8"}
        return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | ours

    def _add(self, agent: Any) -> Any:
        self.lab.agents.append(agent)
        agent.start()
        return agent


@pytest.fixture
def states(lab: Lab, bin_dir: Path) -> StateLab:
    assert (bin_dir / PROGRAM).exists(), f"{bin_dir}/{PROGRAM} is missing: build it, or set FANTAIL_BIN_DIR"
    return StateLab(lab, bin_dir)


# --- what events say ---------------------------------------------------------------------------------------------------


def replayed(events: Sequence[Json], name_space: str = "default") -> dict[str, Json]:
    """What a namespace holds after these events, and nothing before them."""
    items: dict[str, Json] = {}
    for event in events:
        if event["namespace"] != name_space:
            continue
        single = "key" in event
        for key in [event["key"]] if single else event["keys"]:
            after = ({key: event["after"]} if "after" in event else {}) if single else event["after"]
            if key in after:
                items[key] = after[key]
            else:
                items.pop(key, None)
    return items


def assert_no_holes(revisions: Sequence[int], first: int, last: int) -> None:
    """Each of them once and in order."""
    expected = list(range(first, last + 1))
    if list(revisions) == expected:
        return
    wrong = next((i for i, (a, b) in enumerate(zip(revisions, expected)) if a != b), min(len(revisions), len(expected)))
    raise AssertionError(
        f"revisions {first} to {last} once and in order: {len(revisions)} instead of {len(expected)}, "
        f"first difference at place {wrong}: {list(revisions[max(0, wrong - 3) : wrong + 4])}"
    )


def _main(address: str, method: str, arguments: str, count: str) -> None:
    client = Client(address)
    for _ in range(int(count)):
        client.call(method, **json.loads(arguments))
    print("done", flush=True)
    signal.pause()


if __name__ == "__main__":
    _main(*sys.argv[1:])
