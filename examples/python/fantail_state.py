#!/usr/bin/python3
"""A client of fantail-state, written from docs/protocol.md alone.

    with State("tcp://127.0.0.1:5560") as state:
        state.set("price", 42)
        state.call("txn", **{"if": [{"key": "price", "op": "equal", "value": 42}], "then": [["increment", "price"]]})
        for change in state.watch("price"):
            print(change["before"], "->", change["after"])

As a command:

    fantail_state.py [--server ADDR] [--namespace NS] [--key-file FILE] get KEY | set KEY JSON | watch [KEY...]

Needs python3-zmq, python3-flatbuffers and python3-xxhash of Debian. A State and what it makes belong to one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import xxhash
import zmq
from flatbuffers import number_types as types
from flatbuffers.table import Table

DEFAULT_SERVER = "tcp://127.0.0.1:5560"
MAJOR = 1
CHUNK, BEACON = 1, 2
HELLO, WELCOME, FETCH, FETCH_DATA, FETCH_END, UNAVAILABLE = 16, 17, 20, 21, 22, 23
PING, PONG, BYE, ERROR, REQUEST, REPLY, FAILURE = 25, 26, 27, 28, 32, 33, 34
CONSUMER, CLIENT = 1, 2  # roles
HELLO_REQUIRED = 2  # code of Error

HELLO_AGAIN_S = 1.0
NOT_CONNECTED_S = 0.02
DEAD_AFTER_S = 4.0
REPAIR_AFTER_S = 0.25  # a head tells of bytes and none come
ASK_AGAIN_S = 2.0  # no sign of an answer to a fetch
MOST_PER_FETCH = 4 << 20


class Refused(Exception):
    """The server answered with a failure. `kind` is to branch on: "key_absent", "condition_failed", "compacted", ..."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Unreachable(Exception):
    """Nobody greeted us in time: nothing was sent."""


class Lost(Exception):
    """The server went away, or time was up, before it answered: the request took effect or it did not."""


# --- messages: sections 2 to 6 and 11 of the protocol ----------------------------------------------------------------


def header(kind: int, body: bytes, payload: bytes = b"") -> bytes:
    start = b"FNTL" + bytes([MAJOR, kind, 0, 0])
    return start + struct.pack("<Q", xxhash.xxh3_64_intdigest(start + body + payload)) + body


def open_header(frame: bytes, payload: bytes, topic: bytes = b"") -> tuple[int, Fields]:
    """Kind and body of a message; ValueError for one that is damaged or of somebody else."""
    start, body = frame[:8], frame[16:]
    if len(frame) < 16 or start[:5] != b"FNTL" + bytes([MAJOR]):
        raise ValueError("not a fantail message of version 1")
    if frame[8:16] != struct.pack("<Q", xxhash.xxh3_64_intdigest(topic + start + body + payload)):
        raise ValueError("the digest differs")
    return start[5], Fields(body)


def body(*fields: tuple[str, Any] | None) -> bytes:
    """One FlatBuffers table with these fields in the order of the schema; None stands for one that is left out."""
    builder = flatbuffers.Builder(256)
    made = {}
    for slot, field in enumerate(fields):
        if field is not None and field[0] == "text":
            made[slot] = builder.CreateString(field[1])
        if field is not None and field[0] == "texts":
            texts = [builder.CreateString(text) for text in field[1]]
            builder.StartVector(4, len(texts), 4)
            for text in reversed(texts):
                builder.PrependUOffsetTRelative(text)
            made[slot] = builder.EndVector()
    builder.StartObject(len(fields))
    for slot, field in enumerate(fields):
        if field is None:
            continue
        if slot in made:
            builder.PrependUOffsetTRelativeSlot(slot, made[slot], 0)
        elif field[0] == "id":
            builder.Prep(8, 16)
            builder.PrependUint64(int.from_bytes(field[1][8:], "big"))
            builder.PrependUint64(int.from_bytes(field[1][:8], "big"))
            builder.PrependStructSlot(slot, builder.Offset(), 0)
        else:
            getattr(builder, f"Prepend{field[0]}Slot")(slot, field[1], 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


class Fields:
    """Reads a table by the places of its fields in the schema. Any exception: it does not follow the schema."""

    def __init__(self, of: bytes) -> None:
        self._table = Table(of, struct.unpack_from("<I", of)[0])

    def number(self, slot: int, flags: Any = types.Uint64Flags) -> int:
        at = self._table.Offset(4 + 2 * slot)
        return int(self._table.Get(flags, at + self._table.Pos)) if at else 0

    def text(self, slot: int) -> str:
        at = self._table.Offset(4 + 2 * slot)
        return self._table.String(at + self._table.Pos).decode() if at else ""

    def identity(self, slot: int) -> str:
        at = self._table.Offset(4 + 2 * slot)
        return "%016x%016x" % struct.unpack_from("<QQ", self._table.Bytes, at + self._table.Pos) if at else ""

    def structs(self, slot: int, form: str) -> list[tuple[int, ...]]:
        at = self._table.Offset(4 + 2 * slot)
        if not at:
            return []
        size, begin = struct.calcsize(form), self._table.Vector(at)
        return [struct.unpack_from(form, self._table.Bytes, begin + size * i) for i in range(self._table.VectorLen(at))]


def protect(sock: zmq.Socket[bytes], key: bytes) -> None:
    """With a key both sides have the same pair."""
    if key:
        sock.curve_secretkey = key
        sock.curve_publickey = sock.curve_serverkey = zmq.curve_public(key)


# --- the control link ------------------------------------------------------------------------------------------------


class Link:
    """A connection that greets, stays alive, greets again after a restart of the server, and makes requests."""

    def __init__(self, address: str, role: int, key: bytes) -> None:
        self.address = address
        self.key = key
        self.instance = os.urandom(16)
        self.runs = 0  # of the server that were met: with another number nothing that was asked before will be answered
        self._role = role
        self._numbers = itertools.count(1)
        self._up = False
        self._server = ""
        self._heard = self._said_hello = self._pinged = -DEAD_AFTER_S
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 200)
        self.socket.setsockopt(zmq.IMMEDIATE, 1)
        self.socket.setsockopt(zmq.ROUTING_ID, b"P" + self.instance.hex().encode())
        protect(self.socket, key)
        self.socket.connect(address)

    def close(self) -> None:
        if self._up:
            self.send(BYE, body(("text", "closed")))
        self.socket.close()

    def number(self) -> int:
        return next(self._numbers)

    def send(self, kind: int, of: bytes, payload: bytes = b"") -> bool:
        """False: there is no connection. The greeting is repeated, and with it what matters."""
        with contextlib.suppress(zmq.Again):
            self.socket.send_multipart([header(kind, of, payload), payload], zmq.DONTWAIT)
            return True
        return False

    def turn(self, timeout_s: float, others: Callable[[int, Fields, bytes], None] = lambda *_: None) -> bool:
        """Takes in one message, if one comes in time; what is not about the link itself goes to `others`."""
        now = time.monotonic()
        if self._up and self._role != CLIENT and now - self._heard > DEAD_AFTER_S:
            self._up = False
        if not self._up and now - self._said_hello >= HELLO_AGAIN_S and not self._say_hello():
            timeout_s = min(timeout_s, NOT_CONNECTED_S)
        if self._up and self._role != CLIENT and now - max(self._heard, self._pinged) > 1:
            self.send(PING, body(("Uint64", 1)))
            self._pinged = now
        if not self.socket.poll(max(0, int(1000 * min(timeout_s, HELLO_AGAIN_S)))):
            return False
        frames = self.socket.recv_multipart()
        try:
            kind, fields = open_header(frames[0], frames[1])
        except (ValueError, IndexError, struct.error):
            return True  # dropped, as the protocol says
        self._heard = time.monotonic()
        if kind == WELCOME:
            if not self._up or fields.identity(4) != self._server:
                self._up, self._server, self.runs = True, fields.identity(4), self.runs + 1
        elif kind == PING:
            self.send(PONG, body(("Uint64", fields.number(0))))
        elif kind == BYE or (kind == ERROR and fields.number(0, types.Uint16Flags) == HELLO_REQUIRED):
            self._up = False
            self._said_hello = -HELLO_AGAIN_S
        elif kind == ERROR:
            raise Unreachable(f"the server at {self.address} refuses us: {fields.text(1)}")
        else:
            others(kind, fields, frames[1])
        return True

    def call(self, method: str, arguments: dict[str, Any], timeout_s: float, others: Any = lambda *_: None) -> Any:
        """The result; lines of partial answers are collected under "lines"."""
        payload = json.dumps(arguments).encode()
        number, end, parts = self.number(), time.monotonic() + timeout_s, []
        answer: list[tuple[int, Fields, bytes]] = []

        def take(kind: int, fields: Fields, content: bytes) -> None:
            if kind not in (REPLY, FAILURE) or fields.number(0) != number:
                others(kind, fields, content)
            elif kind == REPLY and fields.number(2, types.BoolFlags):
                parts.append(content)
            else:
                answer.append((kind, fields, content))

        while not self._up:
            if time.monotonic() > end:
                raise Unreachable(f"no answer from {self.address}; is 'fantail-state serve' running there?")
            self.turn(end - time.monotonic(), others)
        run = self.runs
        request = (("Uint64", number), ("text", method), ("Uint32", int(1000 * timeout_s)), ("Uint32", len(payload)))
        self.send(REQUEST, body(*request), payload)
        while not answer:
            self.turn(end - time.monotonic(), take)
            if not answer and (self.runs != run or not self._up or time.monotonic() > end):
                raise Lost(f"{method}: {self.address} did not answer; it may have been done")
        kind, fields, content = answer[0]
        if kind == FAILURE:
            raise Refused(fields.text(1), fields.text(2))
        result = json.loads(content)
        return result | {"lines": b"".join(parts).splitlines()} if parts else result

    def _say_hello(self) -> bool:
        who = (("text", "fantail_state.py"), ("id", self.instance), None, ("text", socket.gethostname()[:255]))
        topics = (None, ("texts", ["state"])) if self._role == CONSUMER else ()
        if not self.send(HELLO, body(("Uint8", self._role), ("Uint16", MAJOR), None, *who, *topics)):
            return False
        self._said_hello = time.monotonic()
        return True


# --- the dictionary: section 12 --------------------------------------------------------------------------------------


class State:
    """The dictionary of one namespace. Every method is one request, and atomic. Raises Refused, Unreachable, Lost."""

    def __init__(
        self, server: str = "", namespace: str = "default", timeout_s: float = 5, key_file: str = ""
    ) -> None:
        self.server = server or os.environ.get("FANTAIL_STATE") or DEFAULT_SERVER
        self.namespace = namespace
        self.timeout_s = timeout_s
        file = key_file or os.environ.get("FANTAIL_KEY_FILE", "")
        self.key = Path(file).read_bytes().strip() if file else b""
        self._link = Link(self.server, CLIENT, self.key)

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()

    def call(self, method: str, **arguments: Any) -> Any:
        """Any operation of the protocol by its name."""
        return self._link.call(method, {"namespace": self.namespace} | arguments, self.timeout_s)

    def get(self, key: str, *default: Any) -> Any:
        return self.call("get", key=key, **({"default": default[0]} if default else {}))["value"]

    def set(self, key: str, value: Any, **life: Any) -> None:
        """`life`: ttl_ms=N, or session="..." of call("session_open")."""
        self.call("set", key=key, value=value, **life)

    def delete(self, key: str) -> None:
        self.call("delete", key=key)

    def increment(self, key: str, by: float = 1) -> Any:
        return self.call("increment", key=key, by=by)["value"]

    def append(self, key: str, value: Any) -> int:
        return self.call("append", key=key, value=value)["value"]

    def compare_and_set(self, key: str, old: Any, value: Any) -> None:
        self.call("cas", key=key, old=old, value=value)

    def items(self, prefix: str = "") -> dict[str, Any]:
        return self.call("items", prefix=prefix)["value"]

    def watch(self, *keys: str, prefix: str | None = None, since: int | None = None, own: bool = False) -> Watcher:
        """Every change of these keys, of those that begin with `prefix`, or of all: from now on, or of revisions above
        `since`. Without `own` those that were made through this State are left out."""
        return Watcher(self, keys, prefix, since, b"" if own else self._link.instance)


class Watcher:
    """An iterator over changes, each once and in order, across lost messages, compaction and restarts of the server.

    A change is {"revision", "time", "namespace", "kind", "by", "key", "before", "after"}, or "keys" instead of "key"
    and objects in "before" and "after". `items` is the namespace as it is after the change that came last.
    """

    def __init__(
        self, state: State, keys: tuple[str, ...], prefix: str | None, since: int | None, without: bytes
    ) -> None:
        self._keys, self._prefix = keys, prefix
        self._without = without.hex()
        self._namespace = state.namespace
        self._timeout_s = state.timeout_s
        self._changes: list[dict[str, Any]] = []
        self._stream = ""  # the journal that is followed
        self._cursor = self._known = 0  # everything below was taken; the end of what was handed to the broadcast
        self._fetch = self._asked_from = 0  # number and beginning of the one in flight
        self._link = Link(state.server, CONSUMER, state.key)
        info = self._call("info")
        if info["transport"] != "tcp":
            raise Unreachable(f"{state.server} broadcasts over {info['transport']}, this client hears tcp only")
        self._epoch = info["epoch"]  # of the history that we know
        self._broadcast = zmq.Context.instance().socket(zmq.SUB)
        self._broadcast.setsockopt(zmq.SUBSCRIBE, b"d/state/")
        self._broadcast.setsockopt(zmq.SUBSCRIBE, b"b/")
        protect(self._broadcast, state.key)
        self._broadcast.connect(info["publish"])
        snapshot = self._call("snapshot", namespace=self._namespace)
        entries = map(json.loads, snapshot.get("lines", ()))
        self.items: dict[str, Any] = {entry["key"]: entry["value"] for entry in entries}
        self.revision = snapshot["begin"] if since is None else since  # of the last change that was taken in
        self._quiet = snapshot["end"] if since is None else since  # changes up to this one only make `items` complete
        self._locate()

    def close(self) -> None:
        self._link.close()
        self._broadcast.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            change = self.next(None)
            assert change is not None
            yield change

    def next(self, timeout_s: float | None) -> dict[str, Any] | None:
        """The next change; None when time is up."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._changes:
            if end is not None and time.monotonic() >= end:
                return None
            self._turn(0.1 if end is None else min(0.1, end - time.monotonic()))
        return self._changes.pop(0)

    # following the journal

    def _call(self, method: str, **arguments: Any) -> Any:
        while True:
            with contextlib.suppress(Lost):  # these change nothing: once more
                return self._link.call(method, arguments, self._timeout_s, lambda *message: self._control(*message))

    def _locate(self) -> None:
        """Asks which journal goes on behind our revision, and where in it."""
        place = self._call("locate", revision=self.revision, epoch=self._epoch)
        self._epoch = place["epoch"]
        self._stream = place["stream"]
        self._cursor = self._known = place["offset"]
        self._final: int | None = None
        self._fetch = 0
        self._moved = time.monotonic()  # when something came or was asked for
        self._line = b""
        self._run = self._link.runs

    def _turn(self, timeout_s: float) -> None:
        poller = zmq.Poller()
        poller.register(self._link.socket, zmq.POLLIN)
        poller.register(self._broadcast, zmq.POLLIN)
        poller.poll(max(0, int(1000 * timeout_s)))
        while self._link.turn(0, self._control):
            pass
        while not self._changes and self._broadcast.poll(0):
            with contextlib.suppress(ValueError, IndexError, struct.error):  # damaged: a gap like any other
                topic, head, payload = self._broadcast.recv_multipart()
                self._data(*open_header(head, payload, topic), payload)
        if self._run != self._link.runs or (self._final is not None and self._cursor >= self._final):
            return self._locate()
        quiet_s = time.monotonic() - self._moved
        if self._known > self._cursor and quiet_s > (ASK_AGAIN_S if self._fetch else REPAIR_AFTER_S):
            self._ask()

    def _ask(self) -> None:
        self._fetch, self._asked_from = self._link.number(), self._cursor
        self._moved = time.monotonic()
        to = min(self._known, self._cursor + MOST_PER_FETCH)
        stream = ("id", bytes.fromhex(self._stream))
        self._link.send(FETCH, body(("Uint64", self._fetch), stream, ("Uint64", self._cursor), ("Uint64", to)))

    def _data(self, kind: int, fields: Fields, payload: bytes) -> None:
        if kind == BEACON:
            return self._heads(fields)
        if kind == CHUNK and fields.identity(0) == self._stream:
            offset = fields.number(1)
            if fields.number(5, types.BoolFlags):
                self._final = offset + len(payload)
            self._take(offset, payload, fields.number(3, types.Uint8Flags))

    def _control(self, kind: int, fields: Fields, payload: bytes) -> None:
        if kind == BEACON:
            self._heads(fields)
        elif kind == FETCH_DATA and fields.number(0) == self._fetch:
            self._take(fields.number(2), payload, fields.number(4, types.Uint8Flags))
        elif kind == FETCH_END and fields.number(0) == self._fetch:
            self._fetch = 0
            if self._known > self._cursor > self._asked_from:
                self._ask()  # there is more; where nothing came it is asked for again later
        elif kind == UNAVAILABLE and fields.number(0) == self._fetch:
            self._run = -1  # that journal is gone: asks anew

    def _heads(self, beacon: Fields) -> None:
        for high, low, sent, head, is_sealed, *_ in beacon.structs(5, "<QQQQB7x"):
            if f"{high:016x}{low:016x}" == self._stream:
                self._known = max(self._known, sent)
                if is_sealed:
                    self._final = head

    def _take(self, offset: int, data: bytes, encoding: int) -> None:
        """Bytes of the journal: in order, those that are new; behind a gap they are fetched later."""
        if encoding != 0:
            raise ValueError(f"the journal of {self._link.address} comes compressed; a state server does not do that")
        end = offset + len(data)
        self._known = max(self._known, end)
        if offset > self._cursor and not self._fetch:
            self._ask()
        if offset > self._cursor or end <= self._cursor:
            return
        *lines, self._line = (self._line + data[self._cursor - offset :]).split(b"\n")
        self._cursor = end
        self._moved = time.monotonic()
        for line in lines:
            if line[8:24] != b"%016x" % xxhash.xxh3_64_intdigest(line[26:]):
                raise ValueError(f"a damaged line in the journal of {self._link.address}: {line[:80]!r}")
            self._read(json.loads(line))

    def _read(self, record: dict[str, Any]) -> None:
        if "time" not in record or record["revision"] <= self.revision:
            return  # the snapshot at the beginning of a journal, or known already
        if record["revision"] != self.revision + 1:
            raise ValueError(f"revision {record['revision']} came behind {self.revision}")
        self.revision = record["revision"]
        if record["namespace"] != self._namespace:
            return
        if "key" in record:
            keys = [record["key"]]
            before, after = ({keys[0]: record[side]} if side in record else {} for side in ("before", "after"))
        else:
            keys, before, after = record["keys"], record["before"], record["after"]
        for key in keys:
            if key in after:
                self.items[key] = after[key]
            else:
                self.items.pop(key, None)
        absent = object()
        changed = any(self._hears(key) and before.get(key, absent) != after.get(key, absent) for key in keys)
        is_own = bool(self._without) and record.get("by") == self._without
        if changed and not is_own and self.revision > self._quiet:
            del record["sum"]
            self._changes.append(record)

    def _hears(self, key: str) -> bool:
        if self._prefix is not None and key.startswith(self._prefix):
            return True
        return key in self._keys or (not self._keys and self._prefix is None)


# --- the command -----------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description="Reads, sets and watches the keys of fantail-state.")
    parser.add_argument("--server", default="", help=f"default: $FANTAIL_STATE, else {DEFAULT_SERVER}")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--key-file", default="", help="default: $FANTAIL_KEY_FILE, else no key")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("get").add_argument("key")
    setting = commands.add_parser("set")
    setting.add_argument("key")
    setting.add_argument("json", type=json.loads)
    watching = commands.add_parser("watch")
    watching.add_argument("--since", type=int, metavar="REVISION", help="begin behind this one; default: now")
    watching.add_argument("keys", nargs="*")
    options = parser.parse_args()
    with State(options.server, options.namespace, key_file=options.key_file) as state:
        try:
            if options.command == "get":
                print(json.dumps(state.get(options.key)))
            elif options.command == "set":
                state.set(options.key, options.json)
            else:
                for change in state.watch(*options.keys, since=options.since):
                    print(json.dumps(change), flush=True)
        except Refused as refused:
            print(f"fantail_state: {refused}", file=sys.stderr)
            return 1
        except (Unreachable, Lost) as error:
            print(f"fantail_state: {error}", file=sys.stderr)
            return 4
        except KeyboardInterrupt:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
