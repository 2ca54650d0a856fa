"""fantail-state with a key: who has it reads, writes and watches; who has another one or none does neither, and is counted (Z27)."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "python"))
import fantail_state  # noqa: E402
from fantail_statelab import BEACONS, OK, UNREACHABLE, USAGE, Server, StateLab, states  # noqa: F401

Attacker = Callable[[zmq.Socket, Path], None]


@pytest.fixture
def key(states: StateLab) -> Path:
    return make_key(states, "key")


def make_key(states: StateLab, name: str) -> Path:
    file = states.lab.root / name
    done = states.run("keygen", str(file), environment={})
    assert done.code == OK, done.err
    return file


def refused_keys(states: StateLab, key: Path) -> int:
    return json.loads(states.run("info", "--key-file", key).out)["refused_keys"]


@pytest.mark.parametrize("kind", ("tcp", "ipc"))
def test_z27_who_has_the_key_reads_writes_and_watches(states: StateLab, key: Path, kind: str) -> None:
    server = states.server("--key-file", key, kind=kind)
    watcher = states.watch("k", "--from", "beginning", "--key-file", key)
    for i in range(3):
        assert states.run("set", "--key-file", key, "k", str(i)).code == OK
    assert [event["after"] for event in states.wait_events(watcher, 3)] == [0, 1, 2]
    server.restart()
    assert states.run("set", "k", "3", environment={"FANTAIL_STATE": server.address, "FANTAIL_KEY_FILE": str(key)}).code == OK
    assert states.wait_events(watcher, 4)[-1]["after"] == 3
    assert refused_keys(states, key) == 0


@pytest.mark.parametrize("kind", ("tcp", "ipc"))
def test_z27_another_key_or_none_is_refused_and_counted(states: StateLab, key: Path, kind: str) -> None:
    states.server("--key-file", key, kind=kind)
    assert states.run("set", "--key-file", key, "k", "1").code == OK
    other = make_key(states, "other")
    for flags in (("--key-file", other), ()):
        before = refused_keys(states, key)
        for command in (("get", "k"), ("set", "k", "2")):
            done = states.run(command[0], "--timeout", "1", *flags, *command[1:])
            assert (done.code, done.out) == (UNREACHABLE, "")
            assert "--key-file" in done.err
        states.lab.wait_until(lambda: refused_keys(states, key) > before, "those with the wrong key are counted")
    assert states.run("get", "--key-file", key, "k").out == "1\n"


def test_z27_a_key_for_a_server_without_one(states: StateLab, key: Path) -> None:
    states.server()
    done = states.run("get", "--timeout", "1", "--key-file", key, "k")
    assert done.code == UNREACHABLE
    assert "--key-file" in done.err


@pytest.mark.parametrize("kind", ("tcp", "ipc"))
def test_z27_who_was_there_while_the_server_ran_without_its_key_goes_on_when_it_has_it_again(
    states: StateLab, key: Path, kind: str
) -> None:
    """libzmq gives up a connection for good when one side has a key and the other none."""
    server = states.server(kind=kind, start=False)
    server.start("--key-file", key)
    watcher = states.watch("k", "--from", "beginning", "--key-file", key)
    assert states.run("set", "--key-file", key, "k", "1").code == OK
    states.wait_events(watcher, 1)
    server.kill9()
    server.start()
    states.lab.wait_until(lambda: states.done("info")["refused_keys"] > 1, "the watcher was refused, on both its sockets")
    states.set("k", 2)
    server.kill9()
    server.start("--key-file", key)
    with_key = ("--key-file", key)
    assert states.run("set", *with_key, "k", "3").code == OK
    assert [event["after"] for event in states.wait_events(watcher, 3)] == [1, 2, 3]

    def broadcast() -> bool:
        assert states.run("incr", *with_key, "k").code == OK
        return bool(json.loads(states.run("info", *with_key).out)["broadcasts"] > 0)

    states.lab.wait_until(broadcast, "it listens to what is published again")


def nobody(socket: zmq.Socket, key: Path) -> None:
    """No keys at all."""


def another(socket: zmq.Socket, key: Path) -> None:
    """Keys of its own, and its own idea of the server's."""
    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.curve_serverkey, _ = zmq.curve_keypair()


def friend(socket: zmq.Socket, key: Path) -> None:
    secret = key.read_bytes().strip()
    socket.curve_secretkey = secret
    socket.curve_publickey = socket.curve_serverkey = zmq.curve_public(secret)


@pytest.mark.parametrize("who", (nobody, another, friend), ids=lambda who: who.__name__)
def test_z27_the_broadcast_is_for_those_who_have_the_key(states: StateLab, key: Path, who: Attacker) -> None:
    states.server("--key-file", key)
    publish = json.loads(states.run("info", "--key-file", key).out)["publish"]
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.LINGER, 0)
    who(socket, key)
    socket.setsockopt(zmq.SUBSCRIBE, BEACONS)
    socket.connect(publish)
    try:
        if who is friend:
            assert socket.poll(20_000), "a beacon comes each second"
            return
        states.lab.wait_until(lambda: refused_keys(states, key) > 0, "it is refused and counted")
        assert not socket.poll(0)
    finally:
        socket.close()


def test_z27_the_client_in_python(states: StateLab, key: Path) -> None:
    server = states.server("--key-file", key)
    with fantail_state.State(server.address, key_file=str(key)) as state:
        watcher = state.watch(own=True)
        state.set("k", 7)
        assert watcher.next(20)["after"] == 7
        watcher.close()
    with fantail_state.State(server.address, timeout_s=0.5) as state, pytest.raises(fantail_state.Unreachable):
        state.get("k")


# --- key files ---------------------------------------------------------------------------------------------------------


def test_a_key_is_for_its_owner_and_never_overwritten(states: StateLab, key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    again = states.run("keygen", str(key), environment={})
    assert again.code == USAGE
    assert str(key) in again.err and "exists already" in again.err
    assert key.read_bytes() == before
    assert make_key(states, "second").read_bytes() != before


def spoil_mode(key: Path) -> None:
    key.chmod(0o640)


def spoil_text(key: Path) -> None:
    key.write_text("secret\n")


def make_pipe(key: Path) -> None:
    key.unlink()
    os.mkfifo(key, 0o600)


def lose(key: Path) -> None:
    key.unlink()


@pytest.mark.parametrize(
    ("spoil", "why"), ((spoil_mode, "chmod 600"), (spoil_text, "keygen"), (make_pipe, "regular"), (lose, "keygen")), ids=lambda v: getattr(v, "__name__", "")
)
def test_a_file_that_is_no_key_is_refused(states: StateLab, key: Path, spoil: Callable[[Path], None], why: str) -> None:
    server: Server = states.server()
    spoil(key)
    asked = states.run("get", "--key-file", key, "k", server=server)
    watched = states.run("watch", "--key-file", key, server=server)
    served = states.serve("--endpoint", f"tcp://127.0.0.1:{states.lab.ports.take(4)}", "--key-file", key)
    for done in (asked, watched, served):
        assert done.code == USAGE, done
        assert str(key) in done.err and why in done.err


def test_multicast_takes_no_key(states: StateLab, key: Path) -> None:
    done = states.serve("--transport", "epgm", "--key-file", key)
    assert done.code == USAGE
    assert "--key-file" in done.err and "multicast carries no keys" in done.err


def test_with_a_key_there_is_no_warning_about_other_hosts(states: StateLab, key: Path) -> None:
    for flags, warns in (((), True), (("--key-file", key), False)):
        server = states.server(*flags, start=False)
        server.flags[server.flags.index("--endpoint") + 1] = f"tcp://*:{states.lab.ports.take(4)}"
        server.start()
        states.lab.wait_until(server.is_up, "it is up")
        assert ("without keys" in server.stderr()) == warns
