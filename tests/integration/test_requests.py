"""fantail-pipeline service, worker and call: requests that reach one of several workers, and each answer its caller.

The ids are the rows of docs/parity.md.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path

import pytest

from fantail_lab import Agent, Argument, Finished, Lab

PROGRAM = "fantail-pipeline"

COMPARE = (
    "import json, sys; said = json.load(sys.stdin); "
    'one, other = said["args"] or said["kwargs"].values(); print(json.dumps(one == other))'
)

OK = 0
FAILED = 1
USAGE = 2
TIMEOUT = 3
UNREACHABLE = 4


class Requests:
    """A service (or a place for one), its workers, and calls."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.address = f"tcp://127.0.0.1:{lab.ports.take(1)}"
        self._number = 0

    def agent(self, *arguments: Argument) -> Agent:
        self._number += 1
        agent = self.lab.bare(PROGRAM, *arguments, name=f"{arguments[0]}-{self._number}")
        agent.may_end = arguments[0] == "call"
        agent.start()
        return agent

    def service(self, *flags: Argument) -> Agent:
        service = self.agent("service", "--endpoint", self.address, *flags)
        self.lab.wait_until(lambda: "service started" in service.stderr(), "the service is up")
        return service

    def worker(self, name: str, *flags: Argument, ready: bool = True, **methods: str) -> Agent:
        """A worker with these methods; the service has it when this returns."""
        named = [word for method, command in methods.items() for word in ("--method", f"{method}={command}")]
        before = self.ready(name)
        worker = self.agent("worker", self.address, "--name", name, *named, *flags)
        if ready:
            self.wait_ready(name, before + 1)
        return worker

    def ready(self, name: str) -> int:
        """How often the service has said that this worker is ready."""
        services = [agent for agent in self.lab.agents if agent.name.startswith("service")]
        return sum(agent.stderr().count(f"worker ready peer={name} ") for agent in services)

    def wait_ready(self, name: str, times: int = 1) -> None:
        self.lab.wait_until(lambda: self.ready(name) >= times, f"worker {name} is ready")

    def call(self, method: str, *flags: Argument, deadline: float = 60) -> Finished:
        return self.lab.run(PROGRAM, "call", self.address, method, *flags, deadline=deadline)

    def value(self, method: str, *flags: Argument) -> object:
        """The answer to a call that must succeed, as JSON."""
        done = self.call(method, *flags)
        assert (done.code, done.err) == (OK, ""), done
        return json.loads(done.out.splitlines()[-1])


@pytest.fixture
def requests(lab: Lab) -> Requests:
    return Requests(lab)


# --- bad input ---------------------------------------------------------------------------------------------------------


def test_a_long_reply_that_is_no_json_is_an_error_and_the_worker_goes_on(requests: Requests) -> None:
    requests.service()
    requests.worker("w", long="head -c 700000 /dev/zero | tr '\\0' 1; echo", echo="cat")
    done = requests.call("long")
    assert done.code != OK and "not_json" in done.err and len(done.err) < 5000, done.err[:1000]
    assert requests.value("echo") == {"args": [], "kwargs": {}}


@pytest.mark.parametrize("flags", (("--arg", "a\udcff"), ("--kwarg", "a=\udcff"), ("--type", "\udcff")))
def test_what_is_no_utf_8_is_refused(requests: Requests, flags: tuple[str, ...]) -> None:
    done = requests.call("m", *flags)
    assert done.code == USAGE and "UTF-8" in done.err, done


# --- calls and answers -------------------------------------------------------------------------------------------------


def test_x13_the_seven_calls(requests: Requests) -> None:
    requests.service()
    requests.worker(
        "w",
        "--concurrency", 4,
        ping="cat >/dev/null; echo '\"pong\"'",
        return_none="true",
        compare=f"/usr/bin/python3 -c '{COMPARE}'",
        slow_succeed="echo '\"started\"'; sleep 5; echo '\"done\"'",
        slow_fail="sleep 5; echo 'it could not be done' >&2; exit 1",
    )  # fmt: skip
    assert requests.value("ping") == "pong"
    assert requests.value("return_none") is None
    assert requests.value("compare", "--arg", "same", "--arg", "same") is True
    assert requests.value("compare", "--kwarg", "a=one", "--kwarg", "b=other") is False
    refused = requests.call("invalid_request")
    assert refused.code == FAILED and "method invalid_request not found" in refused.err
    slow = requests.call("slow_succeed", "--timeout", 20)
    assert (slow.code, slow.out.splitlines()) == (OK, ['"started"', '"done"'])
    failed = requests.call("slow_fail", "--timeout", 20)
    assert failed.code == FAILED and "it could not be done" in failed.err


def test_x4_x6_partial_answers_come_in_order_and_at_once(requests: Requests, lab: Lab) -> None:
    requests.service()
    gate = lab.root / "gate"
    requests.worker("w", count=f"seq 100; echo '\"waiting\"'; while ! [ -e {gate} ]; do sleep .02; done; echo 101")
    caller = requests.agent("call", requests.address, "count", "--timeout", 60)
    lab.wait_until(lambda: caller.stdout().endswith(b'100\n'), "all but the last are printed before the command ends")
    gate.touch()
    assert caller.wait_exit() == OK
    assert caller.lines() == [*(str(i).encode() for i in range(1, 101)), b'"waiting"', b"101"]


def test_x4_without_a_worker_a_call_ends_at_its_deadline_and_says_which_type_is_missing(requests: Requests) -> None:
    requests.service()
    requests.worker("w", "--type", "images", resize="cat")
    assert requests.value("resize", "--type", "images", "--arg", 1) == {"args": [1], "kwargs": {}}
    for flags, words in ((("--type", "sounds"), "no worker for 'sounds'"), ((), "no worker")):
        missing = requests.call("resize", "--timeout", 1, *flags)
        assert missing.code == UNREACHABLE and words in missing.err, missing


def test_x4_a_call_waits_for_a_worker_that_comes(requests: Requests) -> None:
    requests.service()
    caller = requests.agent("call", requests.address, "echo", "--arg", 7, "--timeout", 60)
    requests.worker("w", echo="cat")
    assert caller.wait_exit() == OK
    assert json.loads(caller.stdout()) == {"args": [7], "kwargs": {}}


def test_nobody_there_is_told_with_a_hint(requests: Requests) -> None:
    done = requests.call("echo", "--timeout", 1)
    assert done.code == UNREACHABLE
    assert "fantail-pipeline service" in done.err


def test_x4_a_call_that_takes_too_long_ends_and_so_does_its_command(requests: Requests, lab: Lab) -> None:
    requests.service()
    began, ended = lab.root / "began", lab.root / "ended"
    requests.worker("w", hang=f"trap 'touch {ended}; exit 1' TERM; touch {began}; while :; do sleep 0.1; done", quick="echo 1")
    late = requests.call("hang", "--timeout", 2)
    assert late.code == TIMEOUT
    assert began.exists()
    lab.wait_until(ended.exists, "the command is ended")
    assert requests.value("quick") == 1, "its slot is free again"


def test_x9_slow_calls_run_beside_quick_ones_and_heartbeats(requests: Requests, lab: Lab) -> None:
    service = requests.service()
    gate = lab.root / "gate"
    requests.worker("w", "--concurrency", 2, slow=f"while ! [ -e {gate} ]; do sleep .05; done; echo 1", quick="echo 2")
    slow = requests.agent("call", requests.address, "slow", "--timeout", 60)
    for _ in range(10):
        assert requests.value("quick") == 2
    assert slow.alive
    gate.touch()
    assert slow.wait_exit() == OK
    assert "worker gone" not in service.stderr()


def test_p12_many_clients_many_workers_two_types(requests: Requests) -> None:
    """Every answer reaches the one who asked, and equal workers share the work."""
    requests.service()
    for kind in ("a", "b"):
        for number in range(3):
            requests.worker(f"{kind}{number}", "--type", kind, who=f"sed 's/.*\"args\":.\\([0-9]*\\).*/[\"{kind}{number}\", \\1]/'")
    answers: dict[int, object] = {}

    def ask(client: int) -> None:
        kind = "ab"[client % 2]
        done = requests.call("who", "--type", kind, "--arg", client, "--count", 5, "--timeout", 60)
        assert done.code == OK, done
        answers[client] = [json.loads(line) for line in done.out.splitlines()]

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == list(range(20))
    shares: Counter[str] = Counter()
    for client, lines in answers.items():
        for worker, echoed in lines:
            assert (worker[0], echoed) == ("ab"[client % 2], client)
            shares[worker] += 1
    assert sum(shares.values()) == 100 and len(shares) == 6


def test_x1_without_a_service_a_worker_comes_to_the_caller_or_listens_itself(requests: Requests, lab: Lab) -> None:
    worker = requests.worker("w", ready=False, echo="cat")
    for value in (1, 2):
        done = requests.call("echo", "--bind", "--arg", value, "--timeout", 60)
        assert (done.code, json.loads(done.out)["args"]) == (OK, [value]), done
    assert worker.terminate() == OK
    requests.worker("bound", "--bind", "--concurrency", 2, ready=False, echo="cat")
    assert requests.call("echo", "--arg", 3, "--timeout", 60).code == OK
    callers = [requests.agent("call", requests.address, "echo", "--arg", i, "--timeout", 60) for i in range(6)]
    for i, caller in enumerate(callers):
        assert caller.wait_exit() == OK
        assert json.loads(caller.stdout())["args"] == [i]


# --- workers that come and go ------------------------------------------------------------------------------------------


def test_x2_a_stopped_worker_is_lost_and_found_again(requests: Requests, lab: Lab) -> None:
    service = requests.service()
    worker = requests.worker("w", echo="cat")
    worker.freeze()
    lab.wait_until(lambda: "worker gone peer=w" in service.stderr(), "it is missed")
    gone = requests.call("echo", "--timeout", 1)
    assert gone.code == UNREACHABLE and "no worker" in gone.err
    worker.thaw()
    requests.wait_ready("w", 2)
    assert requests.value("echo")


def test_x3_a_worker_that_ends_is_gone_at_once_and_finishes_what_it_has(requests: Requests, lab: Lab) -> None:
    service = requests.service()
    gate, began = lab.root / "gate", lab.root / "began"
    worker = requests.worker("w", slow=f"touch {began}; while ! [ -e {gate} ]; do sleep .05; done; echo 1")
    slow = requests.agent("call", requests.address, "slow", "--timeout", 60)
    lab.wait_until(began.exists, "the command runs")
    later = requests.agent("call", requests.address, "slow", "--timeout", 60)
    worker.ask_to_end()
    lab.wait_until(lambda: "stopping" in worker.stderr(), "it was told to end")
    gate.touch()
    assert slow.wait_exit() == OK, "it finishes what it has in hand"
    assert worker.wait_exit() == OK
    lab.wait_until(lambda: 'worker gone peer=w reason="it said goodbye' in service.stderr(), "it says goodbye")
    requests.worker("w2", slow="echo 2")
    assert later.wait_exit() == OK, "what it had not begun goes to another"
    assert later.stdout() == b"2\n"


def test_p17_a_killed_worker_takes_its_commands_with_it_and_its_caller_is_told(requests: Requests, lab: Lab) -> None:
    requests.service()
    pid = lab.root / "pid"
    worker = requests.worker("w", hang=f"echo $$ >{pid}; sleep 1000")
    caller = requests.agent("call", requests.address, "hang", "--timeout", 60)
    lab.wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"), "the command runs")
    worker.kill9()
    assert caller.wait_exit() == UNREACHABLE
    assert "worker 'w'" in caller.stderr() and "may have taken effect" in caller.stderr()
    command = int(pid.read_text())
    lab.wait_until(lambda: not Path(f"/proc/{command}").exists(), "the command is gone")


def test_a_killed_caller_frees_its_worker_and_its_command_is_ended(requests: Requests, lab: Lab) -> None:
    requests.service()
    pid = lab.root / "pid"
    requests.worker("w", hang=f"echo $$ >{pid}; exec sleep 1000", quick="echo 1")
    caller = requests.agent("call", requests.address, "hang", "--timeout", 0)
    lab.wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"), "the command runs")
    caller.kill9()
    command = int(pid.read_text())
    lab.wait_until(lambda: not Path(f"/proc/{command}").exists(), "the command is gone")
    assert requests.value("quick", "--timeout", 50) == 1, "its slot is free again"


def test_a_caller_that_is_stopped_for_a_while_gets_its_answer(requests: Requests, lab: Lab) -> None:
    service = requests.service()
    go, began = lab.root / "go", lab.root / "began"
    requests.worker("w", slow=f"touch {began}; until [ -e {go} ]; do sleep 0.1; done; echo 7")
    other = requests.worker("other", "--type", "another", echo="cat")
    caller = requests.agent("call", requests.address, "slow", "--timeout", 0)
    lab.wait_until(began.exists, "the command runs")
    caller.freeze()
    other.freeze()
    lab.wait_until(lambda: "worker gone peer=other" in service.stderr(), "who is silent that long and owes signs of life is missed")
    go.touch()
    caller.thaw()
    assert (caller.wait_exit(), caller.stdout()) == (OK, b"7\n")


def test_p16_any_order_of_start_and_a_service_that_is_killed(requests: Requests, lab: Lab) -> None:
    worker = requests.worker("w", ready=False, echo="cat")
    caller = requests.agent("call", requests.address, "echo", "--timeout", 60)
    service = requests.service()
    assert caller.wait_exit() == OK
    for _ in range(2):
        service.kill9()
        service.start()
        assert requests.value("echo", "--timeout", 60)
    assert worker.alive


def test_a_worker_with_a_name_that_is_taken_says_so_and_ends(requests: Requests) -> None:
    requests.service()
    first = requests.worker("same", echo="cat")
    second = requests.worker("same", ready=False, echo="exit 1")
    assert second.wait_exit() == FAILED
    assert "'same' is here already" in second.stderr() and "--name" in second.stderr()
    assert first.alive and requests.value("echo")


# --- bad answers, bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command, words",
    (
        ("echo nonsense", "no JSON"),
        ("exit 7", "ended with 7"),
        ("echo 1; exit 7", "ended with 7"),
        ("kill -9 $$", "signal 9"),
        ("no-such-program", "not found"),
        ("head -c 2000000 /dev/zero | tr '\\0' 1", "more than 1 MiB"),
        ("echo 1; echo nonsense; echo 2", "no JSON"),
    ),
)
def test_x7_a_command_that_fails_is_one_clear_failure_and_harms_no_other(requests: Requests, command: str, words: str) -> None:
    requests.service()
    requests.worker("w", bad=command, good="cat")
    done = requests.call("bad")
    assert done.code == FAILED and words in done.err, done
    shown = requests.call("bad", "--json")
    assert words in json.loads(shown.out.splitlines()[-1])["error"]["message"]
    assert requests.value("good", "--arg", "[1, 2]") == {"args": [[1, 2]], "kwargs": {}}


@pytest.mark.parametrize(
    "arguments, words",
    (
        (("call",), "takes ADDRESS and METHOD"),
        (("call", "nowhere", "m"), "nowhere"),
        (("call", "tcp://127.0.0.1:1", "m", "--count", "0"), "--count '0'"),
        (("call", "tcp://127.0.0.1:1", "m", "--kwarg", "=1"), "NAME=JSON"),
        (("call", "tcp://*:1", "m"), "wildcard"),
        (("worker", "tcp://127.0.0.1:1"), "--method NAME=CMD"),
        (("worker", "--method", "a=b"), "ADDRESS"),
        (("worker", "tcp://127.0.0.1:1", "--method", "a"), "NAME=COMMAND"),
        (("worker", "tcp://127.0.0.1:1", "--method", "a=b", "--method", "a=c"), "given twice"),
        (("worker", "tcp://127.0.0.1:1", "--method", "a=b", "--concurrency", "1000"), "--concurrency"),
        (("worker", "tcp://127.0.0.1:1", "--emit", "a"), "--emit 'a'"),
        (("listen",), "one ADDRESS"),
        (("service", "--endpoint", "nowhere"), "nowhere"),
        (("no-such-command",), "no-such-command"),
        ((), "usage"),
    ),
)
def test_bad_usage(lab: Lab, arguments: tuple[str, ...], words: str) -> None:
    done = lab.run(PROGRAM, *arguments)
    assert done.code == USAGE and words in done.err, done


def test_who_has_another_key_is_refused(requests: Requests, lab: Lab) -> None:
    key = lab.root / "key"
    assert lab.run("fantail-state", "keygen", str(key)).code == OK
    requests.service("--key-file", key)
    requests.worker("w", "--key-file", key, echo="cat")
    assert requests.call("echo", "--key-file", key).code == OK
    stranger = requests.call("echo", "--timeout", 1)
    assert stranger.code == UNREACHABLE


def test_x10_workers_start_and_end_over_and_over(requests: Requests, lab: Lab) -> None:
    """Without a hang or a process left behind."""
    requests.service()
    for i in range(10):
        worker = requests.worker(f"w{i}", echo="cat")
        assert worker.terminate() == OK
    for i in range(5):
        early = requests.worker(f"early{i}", ready=False, echo="cat")
        lab.wait_until(lambda: "worker started" in early.stderr(), "it is up")
        assert early.terminate() == OK, "also before it has found the service"


# --- events ------------------------------------------------------------------------------------------------------------


def test_x8_what_workers_tell_reaches_every_listener_in_order(requests: Requests, lab: Lab) -> None:
    """100,000 events of two workers, while calls and heartbeats go on; all of them at each of two listeners."""
    service = requests.service()
    listeners = [requests.agent("listen", requests.address, "--count", 100_000) for _ in range(2)]
    for listener in listeners:
        listener.may_end = True
        lab.wait_until(lambda: "listening" in listener.stderr(), "it listens")
    for name in ("a", "b"):
        requests.worker(name, "--emit", f"numbers=seq 49000; echo '{{\"from\": \"{name}\"}}'; seq 999; sleep 1000", echo="cat")
    for _ in range(5):
        assert requests.value("echo")
    for listener in listeners:
        assert listener.wait_exit() == OK
        seen: dict[str, list[object]] = {"a": [], "b": []}
        for line in listener.lines():
            event = json.loads(line)
            seen[event["worker"]].append(event["content"])
            assert (event["channel"], event["sequence"]) == ("numbers", len(seen[event["worker"]]))
        for name, contents in seen.items():
            assert contents == [*range(1, 49001), {"from": name}, *range(1, 1000)]
    assert "worker gone" not in service.stderr()


def test_x8_a_listener_finds_the_service_again_and_says_that_something_may_be_missing(requests: Requests, lab: Lab) -> None:
    service = requests.service()
    listener = requests.agent("listen", requests.address)
    lab.wait_until(lambda: "listening" in listener.stderr(), "it listens")
    service.kill9()
    service.start()
    lab.wait_until(lambda: listener.stderr().count("listening") == 2, "it listens again")
    assert "events may be missing" in listener.stderr()
    requests.worker("w", "--emit", "words=echo plain text; sleep 1000")
    lab.wait_until(lambda: listener.stdout().endswith(b"\n"), "it is told")
    assert json.loads(listener.stdout()) == {"worker": "w", "channel": "words", "sequence": 1, "content": "plain text"}
