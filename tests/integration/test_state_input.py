"""What fantail-state takes and gives: exit codes, standard input and output, limits, and every kind of bad input."""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
import zmq

from fantail_statelab import (
    FALSE,
    OK,
    TIMEOUT,
    USAGE,
    Refused,
    StateLab,
    replayed,
    states,  # noqa: F401
)

Json = Any


def one_sentence(text: str) -> bool:
    """Something is said, once, and no more than two lines: what is wrong, and perhaps what to do."""
    lines = text.strip().splitlines()
    return 0 < len(lines) <= 2 and len(set(lines)) == len(lines)


# --- exit codes, input and output --------------------------------------------------------------------------------------


def test_exit_codes(states: StateLab) -> None:
    states.server()
    states.set("n", 1)
    states.set("t", "x")
    expected: dict[tuple[str, ...], int] = {
        ("get", "n"): OK,
        ("get", "absent"): FALSE,
        ("get", "absent", "--default", "null"): OK,
        ("del", "absent"): FALSE,
        ("pop", "absent"): FALSE,
        ("cas", "n", "2", "3"): FALSE,
        ("cas", "absent", "2", "3"): FALSE,
        ("cas", "n", "--revision", "7", "3"): FALSE,
        ("cas", "n", "1", "2"): OK,
        ("cas", "n", "--revision", "3", "1"): OK,
        ("incr", "t"): FALSE,
        ("append", "n", "1"): FALSE,
        ("incr", "n", "9223372036854775807"): FALSE,
        ("keys", "nothing-begins-so"): OK,
        ("get",): USAGE,
        ("get", "n", "more"): USAGE,
        ("set", "n"): USAGE,
        ("get", "--fly", "n"): USAGE,
        ("cas", "n", "--revision", "1", "2", "3"): USAGE,
        ("fly",): USAGE,
        ("",): USAGE,
        ("wait",): USAGE,
        ("wait", "n", "--timeout", "0.2"): TIMEOUT,
        ("del", "n"): OK,
    }
    for line, code in expected.items():
        done = states.run(*line)
        assert done.code == code, (line, done)
        assert (done.err == "") == (code == OK), (line, done)


def test_errors_as_json(states: StateLab) -> None:
    states.server()
    done = states.run("get", "--json", "absent")
    assert (done.code, done.err) == (FALSE, "")
    error = json.loads(done.out)["error"]
    assert (error["type"], error["message"]) == ("key_absent", "key 'absent' is absent")


def test_transactions_from_standard_input(states: StateLab) -> None:
    states.server()
    transaction = {
        "if": [{"key": "a", "op": "absent"}, {"key": "n", "op": "less", "value": 3}],
        "then": [["set", "a", 1], ["increment", "n", 5], ["get", "n"], ["append", "l", "x"]],
        "else": [["increment", "failed"], ["get", "a"]],
    }
    states.set("n", 2)

    first = states.run("txn", stdin=json.dumps(transaction))
    second = states.run("txn", stdin=json.dumps(transaction))

    assert first.code == OK
    results = json.loads(first.out)
    assert results["succeeded"] is True
    assert [result.get("value") for result in results["results"]] == [None, 7, 7, 1]
    assert second.code == FALSE
    results = json.loads(second.out)
    assert results["succeeded"] is False
    assert [result["value"] for result in results["results"]] == [1, 1]
    assert states.items() == {"a": 1, "n": 7, "l": ["x"], "failed": 1}
    assert states.revision() == 3


@pytest.mark.parametrize(
    "steps",
    (
        [["set", "a", 1], ["delete", "absent"]],
        [["set", "a", 1], ["increment", "text"]],
        [["set", "a", 1], ["fly", "a"]],
        [["set", "a", 1], ["set", "", 1]],
        [["set", "a", 1], ["txn", {}]],
        [["set", "a", 1], ["set", "b"]],
        [["set", "a", 1], ["set", "b", 1, 2]],
        [["set", "a", 1], 7],
        [["set", "a", 1], []],
        [["clear"], ["pop", "absent"]],
        [["replace", {"z": 1}], ["cas", "text", "y", "z"]],
    ),
    ids=lambda steps: json.dumps(steps[-1]),
)
def test_a_transaction_of_which_a_part_fails_leaves_no_trace(states: StateLab, steps: Json) -> None:
    states.server()
    states.set("text", "x")
    done = states.run("txn", stdin=json.dumps({"then": steps}))
    assert done.code in (FALSE, USAGE) and done.out == ""
    assert one_sentence(done.err)
    assert states.items() == {"text": "x"}
    assert states.revision() == 1


def test_dump_and_load(states: StateLab) -> None:
    """Everything that JSON can say comes back."""
    first, second = states.server(), states.server(kind="ipc")
    values = {
        "": 1,
        "ünï\U0001f600": ["\u0000", "\\", "/", '"', "\u2028"],
        "numbers": [0, -1, 2**63 - 1, -(2**63), 2**64 - 1, 0.1, 1e300, -5e-324],
        "nested": {"a": {"b": [{"c": None}]}},
        "key with \n and 'quotes'": True,
    }
    values.pop("")
    states.done("load", stdin=json.dumps(values))
    dumped = states.run("dump").out
    assert json.loads(dumped) == values
    states.done("load", stdin=dumped, server=second)
    assert states.run("dump", server=second).out == dumped
    assert states.done("dump", "numbers", server=second) == {"numbers": values["numbers"]}
    assert states.revision(second) == 1
    assert states.revision(first) == 1


def test_a_large_dump_can_be_loaded_again(states: StateLab) -> None:
    """24 MB, three times what one value may have."""
    states.server()
    client = states.client()
    for i in range(24):
        client.call("set", key=f"k{i}", value="x" * 1_000_000)
    dumped = states.run("dump")
    assert dumped.code == OK, dumped.err
    assert len(dumped.out) > 24_000_000

    loaded = states.run("load", "--namespace", "copy", stdin=dumped.out)

    assert (loaded.code, loaded.err) == (OK, "")
    assert states.items("copy") == states.items()


@pytest.mark.parametrize("size", (8_000_000, 8 * 1024 * 1024 - 2))
def test_a_value_of_the_largest_size_passes_through_everything(states: StateLab, size: int) -> None:
    """Set, changed, told to a watcher as before and after, kept over a restart."""
    server = states.server()
    client = states.client()
    client.call("set", key="k", value="a" * size)
    client.call("set", key="k", value="b" * size)
    assert client.call("get", key="k")["value"] == "b" * size
    done = states.run("get", "--string", "k")
    assert (done.code, done.out) == (OK, "b" * size + "\n")
    server.restart()
    events = states.history()
    assert [len(event.get("after", "")) for event in events] == [size, size]
    assert client.items() == {"k": "b" * size}


# --- bad input ---------------------------------------------------------------------------------------------------------

DEEP = 128
INVALID_UTF8 = os.fsdecode(b"\xff\xfe")

BAD_INPUT: dict[str, tuple[tuple[str, ...], bytes, tuple[str, ...]]] = {
    # name: command, standard input, words of the error
    "empty key": (("set", "", "1"), b"", ("key must not be empty",)),
    "empty key to get": (("get", ""), b"", ("key must not be empty",)),
    "long key": (("set", "k" * 4097, "1"), b"", ("4096 bytes",)),
    "long namespace": (("set", "--namespace", "n" * 256, "k", "1"), b"", ("255 bytes",)),
    "no JSON": (("set", "k", "{"), b"", ("not valid JSON", "--string")),
    "a bare word": (("set", "k", "word"), b"", ("word", "not valid JSON", "--string")),
    "nothing": (("set", "k", ""), b"", ("not valid JSON",)),
    "two values": (("set", "k", "1 2"), b"", ("not valid JSON",)),
    "NaN": (("set", "k", "NaN"), b"", ("NaN", "not valid JSON")),
    "Infinity": (("set", "k", "Infinity"), b"", ("Infinity", "not valid JSON")),
    "a number beyond all": (("set", "k", "1e999"), b"", ("1e999",)),
    "too deep": (("set", "k", "[" * (DEEP + 1) + "]" * (DEEP + 1)), b"", ("128 levels",)),
    "too deep in a transaction": (
        ("txn",),
        b'{"then":[["set","k",' + b"[" * (DEEP + 1) + b"]" * (DEEP + 1) + b"]]}",
        ("128 levels",),
    ),
    "value over the limit": (("set", "k", json.dumps("x" * 2000)), b"", ("2002 bytes", "1024", "--max-value")),
    "value over the limit by append": (("append", "list", json.dumps("x" * 1010)), b"", ("1024", "--max-value")),
    "value over the limit by patch": (("patch", "o", json.dumps({"a": "x" * 1020})), b"", ("1024", "--max-value")),
    "value over the limit by far": (("load",), b'{"k":"' + b"x" * 1_000_000 + b'"}', ("--max-value",)),
    "value far over the limit alone": (("set", "k", json.dumps("x" * 100_000)), b"", ("1024", "--max-value")),
    "invalid UTF-8 in a value": (("set", "k", f'"{INVALID_UTF8}"'), b"", ("UTF-8",)),
    "invalid UTF-8 in a bare text": (("set", "--string", "k", INVALID_UTF8), b"", ("UTF-8",)),
    "invalid UTF-8 in a key": (("set", INVALID_UTF8, "1"), b"", ("UTF-8",)),
    "invalid UTF-8 in a namespace": (("set", "--namespace", INVALID_UTF8, "k", "1"), b"", ("UTF-8",)),
    "invalid UTF-8 on standard input": (("load",), b'{"k":"\xff"}', ("UTF-8",)),
    "half a surrogate": (("set", "k", '"\\ud800"'), b"", ("not valid JSON",)),
    "text to a number": (("incr", "text"), b"", ("'text'", "no number", "string")),
    "number by a text": (("incr", "n", '"x"'), b"", ("'by' must be a number",)),
    "append to a number": (("append", "n", "1"), b"", ("'n'", "no array", "number")),
    "beyond 64 bits": (("incr", "n", str(2**63 - 1)), b"", ("'n'", "64 bits")),
    "beyond all numbers": (("incr", "huge", "1e308"), b"", ("'huge'", "finite")),
    "cas of no revision": (("cas", "n", "--revision", "x", "1"), b"", ("not valid JSON",)),
    "cas of a negative revision": (("cas", "n", "--revision=-1", "1"), b"", ("'revision'", "whole number")),
    "negative time to live": (("set", "--ttl=-1", "k", "1"), b"", ("--ttl",)),
    "endless time to live": (("set", "--ttl", "1e300", "k", "1"), b"", ("--ttl",)),
    "lease too short": (("set", "--session", "--lease", "0.01", "k", "1"), b"", ("--lease",)),
    "lease too long": (("set", "--session", "--lease", "100000", "k", "1"), b"", ("lease",)),
    "load of a list": (("load",), b"[1]", ("standard input", "object")),
    "load of nothing": (("load",), b"", ("standard input",)),
    "load of an empty key": (("load",), b'{"good":1,"":2}', ("key must not be empty",)),
    "txn of a text": (("txn",), b'"x"', ("standard input", "object")),
    "txn of half": (("txn",), b'{"then":[', ("standard input", "not valid JSON")),
    "txn whose then is no list": (("txn",), b'{"then":{"set":1}}', ("'then' must be an array",)),
    "txn whose condition is unknown": (("txn",), b'{"if":[{"key":"n","op":"odd"}]}', ("condition 'odd'", "equal")),
    "txn whose condition lacks a value": (("txn",), b'{"if":[{"key":"n","op":"equal"}]}', ("'value' is missing",)),
    "txn whose condition is a text": (("txn",), b'{"if":["n"]}', ("condition",)),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_clear_error_and_changes_nothing(states: StateLab, case: str) -> None:
    server = states.server("--max-value", 1024)
    good = {"n": 1, "text": "x", "list": ["x" * 20], "o": {}, "huge": 1.7e308}
    states.done("load", stdin=json.dumps(good))
    command, stdin, words = BAD_INPUT[case]

    done = states.run(*command, stdin=stdin)

    assert done.code in (FALSE, USAGE), done
    assert done.out == ""
    assert one_sentence(done.err), done.err
    missing = [word for word in words if word not in done.err]
    assert not missing, f"does not mention {missing}: {done.err}"
    assert len(done.err) < 1000
    assert states.items() == good
    assert states.revision() == 1
    assert server.alive


def test_the_greatest_that_is_allowed_is_taken(states: StateLab) -> None:
    states.server("--max-value", 1024)
    states.set("long", "x" * 1022)
    states.set("k" * 4096, 1)
    states.set("k", 1, "--namespace", "n" * 255)
    assert states.done("set", "max", str(2**63 - 1)) is None
    assert states.done("decr", "max", str(2**63 - 1)) == 0


def nested(depth: int) -> Json:
    value: Json = 1
    for _ in range(depth):
        value = [value]
    return value


DEEP_REQUESTS: dict[str, Callable[[Json], tuple[str, dict[str, Json]]]] = {
    "set": lambda value: ("set", {"key": "k", "value": value}),
    "load": lambda value: ("update", {"values": {"k": value, "other": 1}}),
    "append": lambda value: ("append", {"key": "k", "value": value[0]}),
    "patch": lambda value: ("merge_patch", {"key": "k", "patch": value}),
    "txn": lambda value: ("txn", {"then": [["append", "k", value[0]], ["set", "other", 1]]}),
}


@pytest.mark.parametrize("how", DEEP_REQUESTS)
def test_a_value_of_128_levels_is_taken_and_passes_through_everything(states: StateLab, how: str) -> None:
    """Read alone and with others, told to a watcher."""
    states.server()
    value = nested(DEEP)
    method, arguments = DEEP_REQUESTS[how](value)
    states.client().call(method, **arguments)
    assert states.done("get", "k") == value
    assert states.items()["k"] == value
    assert replayed(states.history())["k"] == value


@pytest.mark.parametrize("how", DEEP_REQUESTS)
def test_the_deepest_value_that_is_taken_survives_a_restart_and_so_does_what_comes_after(
    states: StateLab, how: str
) -> None:
    server = states.server()
    client = states.client()
    for depth in range(DEEP + 3, 0, -1):
        method, arguments = DEEP_REQUESTS[how](nested(depth))
        with contextlib.suppress(Refused):
            client.call(method, **arguments)
            break
    for value in (1, 2):
        client.call("set", key="later", value=value)
    before = client.items()

    server.restart()

    assert client.items() == before
    assert "damaged" not in server.stderr()


@pytest.mark.parametrize(
    "payload",
    (
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b'{"key":1,"value":1}',
        b'{"key":null,"value":1}',
        b'{"key":"k"}',
        b'{"key":"k","value":1,"namespace":""}',
        b'{"key":"k","value":1,"namespace":7}',
        b'{"key":"k","value":NaN}',
        b'{"key":"k","value":1,"ttl_ms":0}',
        b'{"key":"k","value":1,"ttl_ms":-1}',
        b'{"key":"k","value":1,"ttl_ms":18446744073709551615}',
        b'{"key":"k","value":1,"ttl_ms":"1"}',
        b'{"key":"k","value":1,"session":"00"}',
        b'{"key":"k","value":1,"session":7}',
        b'{"key":"k","value":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ),
    ids=lambda payload: payload[:50].decode(errors="replace"),
)
def test_malformed_requests_are_answered_and_change_nothing(states: StateLab, payload: bytes) -> None:
    states.server()
    client = states.client()
    with pytest.raises(Refused) as refused:
        client.call_text("set", payload)
    assert refused.value.kind in ("bad_request", "session_unknown")
    assert states.revision() == 0


@pytest.mark.parametrize(
    ("method", "size"),
    (("", None), ("get", 0), ("get", 1_000_000), ("m" * 300, None)),
    ids=("no method", "size 0", "size 1000000", "long method"),
)
def test_requests_that_contradict_themselves_are_answered(states: StateLab, method: str, size: int | None) -> None:
    """Their number can be read: who sent them is told, and need not wait in vain."""
    states.server()
    with pytest.raises(Refused):
        states.client().answer_to(method, b'{"key":"k"}', size)
    assert states.revision() == 0


@pytest.mark.parametrize("flood", ("messages", "requests"))
def test_a_flood_of_nonsense_is_logged_once_a_second_at_most(states: StateLab, flood: str) -> None:
    """A line more than seconds is allowed for the end of one kind of nonsense and the beginning of another."""
    server = states.server()
    begin = time.monotonic()
    said = len(server.stderr().splitlines())
    if flood == "messages":
        nonsense(server.address, 20_000, states.lab.rng)
    else:
        client = states.client()
        for i in range(3000):
            with contextlib.suppress(Refused):
                client.call("fly" if i % 2 else "set", key="")
    assert states.done("ping") == server.pid
    lines = server.stderr().splitlines()[said:]
    assert len(lines) <= time.monotonic() - begin + 2, lines[:10]
    assert states.revision() == 0


def nonsense(address: str, count: int, rng: random.Random) -> None:
    """Messages of one peer that are no fantail messages; all are sent when this returns."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as attacker:
        attacker.setsockopt(zmq.SNDHWM, 0)
        attacker.setsockopt(zmq.LINGER, 10_000)
        attacker.connect(address)
        for _ in range(count):
            attacker.send_multipart([rng.randbytes(rng.choice((0, 8, 16, 40, 200))) for _ in range(rng.randrange(1, 4))])


@pytest.mark.parametrize(
    "method", ("locate", "snapshot", "session_open", "session_renew", "session_close", "session_fly")
)
def test_malformed_requests_of_other_kinds_are_answered(states: StateLab, method: str) -> None:
    """With a failure, or where the arguments may be absent or are of another method, with a result."""
    server = states.server()
    client = states.client()
    for payload in (
        b"",
        b"[]",
        b"{",
        b'{"revision":"x"}',
        b'{"revision":-1}',
        b'{"namespace":7}',
        b'{"prefix":[]}',
        b'{"session":7}',
        b'{"lease_ms":"x"}',
        b'{"lease_ms":1e300}',
    ):
        try:
            client.call_text(method, payload)
        except Refused as refused:
            assert refused.kind in ("bad_request", "session_unknown", "unknown_method"), payload
    assert states.done("ping") == server.pid
    assert states.revision() == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    (
        (("--compact-at", "1K"), ("--compact-at",)),
        (("--max-value", "1"), ("--max-value",)),
        (("--max-value", "100G"), ("--max-value", "67108864")),
        (("--durability", "perhaps"), ("--durability", "write", "fsync", "none")),
        (("--transport", "pigeon"), ("--transport", "tcp", "epgm")),
        (("--transport", "epgm", "--publish", "tcp://127.0.0.1:1"), ("--publish", "epgm")),
        (("--transport", "epgm", "--group", "10.0.0.1"), ("--group", "10.0.0.1")),
        (("--group", "239.192.0.9"), ("--group", "epgm")),
        (("--state-dir", "/proc/nowhere"), ("/proc/nowhere",)),
        (("--log-level", "loud"), ("--log-level",)),
        (("extra",), ("extra",)),
    ),
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_flags_of_the_server_are_told(states: StateLab, flags: tuple[str, ...], words: tuple[str, ...]) -> None:
    done = states.serve("--endpoint", f"tcp://127.0.0.1:{states.lab.ports.take(1)}", *flags)
    assert done.code in (1, USAGE) and done.out == ""
    missing = [word for word in words if word not in done.err]
    assert not missing, f"does not mention {missing}: {done.err}"
    assert one_sentence(done.err)
