"""fantail-pipeline as its operator meets it: what is shown, ending early, changed files, hosts that come and go."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from fantail_lab import LOOPBACK, Lab, Place
from fantail_netlab import Netlab
from fantail_pipelab import PROGRAM, PipeLab, rows

OK = 0
FAILED = 1
USAGE = 2


@pytest.fixture
def pipe(lab: Lab) -> PipeLab:
    return PipeLab(lab)


def pending(pid: int, which: signal.Signals) -> bool:
    """Whether the signal was sent to the process and not taken yet."""
    mask = re.search(r"ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[1]
    return bool(int(mask, 16) >> (which - 1) & 1)


# --- what is shown -----------------------------------------------------------------------------------------------------


def test_the_bar_on_a_terminal_ends_with_all_of_it(pipe: PipeLab, lab: Lab) -> None:
    run = lab.bare(
        PROGRAM, "run", "--lines", pipe.numbers(40), "--task", "t=sleep 0.05; [ {} != 7 ]", "--workers", 2, "--bar", name="run"
    )
    run.may_end = True
    run.start_on_terminal(columns=100)
    assert run.wait_exit() == FAILED, "one was given up"
    shown = re.findall(r"\d+/40\+?  .*?failures \d+(?:  given up \d+)?", run.stderr())
    done = [int(re.match(r"(\d+)/40\+?  ", part)[1]) for part in shown]
    assert done == sorted(done) and len(set(done)) > 3, shown
    assert re.fullmatch(r"40/40  \d+\.\d/s  ETA \S+  workers \d  failures 1  given up 1", shown[-1]), shown[-1]
    last, _, verdict = run.stderr().replace("\r", "").rstrip().rpartition("\n")
    assert last.endswith(shown[-1]) and verdict == "fantail-pipeline: 1 of 40 jobs were given up"
    assert len(run.lines()) == 40


def test_no_bar_where_there_is_no_terminal(pipe: PipeLab) -> None:
    done = pipe.run("--lines", pipe.numbers(3), "--task", "t=echo {}", "--workers", 1, "--bar")
    assert (done.code, done.err) == (OK, "")


# --- ending early ------------------------------------------------------------------------------------------------------


def test_told_once_a_run_finishes_what_is_going_on(pipe: PipeLab, lab: Lab) -> None:
    begun = lab.root / "begun"
    task = f"t=echo {{}} >> {begun}; sleep 1; echo {{}}"
    run = pipe.agent("run", "--lines", pipe.numbers(50), "--task", task, "--workers", 2, "--state-dir", lab.root / "state")
    lab.wait_until(lambda: begun.exists() and len(begun.read_text().split()) == 2, "both workers are at it")
    run.ask_to_end()
    assert run.wait_exit() == FAILED
    assert sorted(json.loads(line)["result"] for line in run.lines()) == sorted(map(int, begun.read_text().split()))


def test_told_twice_a_run_ends_at_once_and_goes_on_later(pipe: PipeLab, lab: Lab) -> None:
    wait, flags = lab.root / "wait", ("--lines", pipe.numbers(4), "--workers", 1, "--state-dir", lab.root / "state")
    wait.touch()
    task = f"t=echo {{}} >> {lab.root}/begun; while [ -e {wait} ] && [ {{}} = 3 ]; do sleep 0.02; done; echo {{}}"
    run = pipe.agent("run", *flags, "--task", task, "--drain", 3600)
    begun = lab.root / "begun"
    lab.wait_until(lambda: begun.exists() and begun.read_text().split() == ["1", "2", "3"], "the third never ends")
    run.ask_to_end()
    lab.wait_until(lambda: not pending(run.pid, signal.SIGTERM), "it was told")
    run.ask_to_end()
    assert run.wait_exit() == FAILED
    run.wait_children_gone()
    wait.unlink()
    again = pipe.run(*flags, "--task", task)
    assert again.code == OK
    assert sorted(row["result"] for row in rows(again)) == [1, 2, 3, 4], "each once, those of before too"


def test_keep_order_has_a_job_that_was_given_up_in_its_place(pipe: PipeLab) -> None:
    done = pipe.run("--lines", pipe.numbers(5), "--workers", 2, "--keep-order", "--task", "t=[ {} != 2 ] && echo {}")
    assert done.code == FAILED
    assert [(row["id"], row["exit"]) for row in rows(done)] == [(f"t:{n}", int(n == 2)) for n in range(1, 6)]


@pytest.mark.parametrize("words", (["collect"], ["run", "--lines", "-", "--task", "t=true"]))
def test_a_state_directory_that_cannot_be_used_is_a_usage_error(lab: Lab, words: list[str]) -> None:
    (lab.root / "file").touch()
    refused = lab.run(PROGRAM, *words, "--state-dir", lab.root / "file" / "below")
    assert refused.code == USAGE and "choose another with --state-dir" in refused.err


def test_a_dead_letter_list_where_no_distributor_was_is_refused_and_not_made(pipe: PipeLab, lab: Lab) -> None:
    refused = pipe.ask("dead", "list", "--state-dir", lab.root / "nothing")
    assert refused.code == USAGE and "holds no journal of a distributor" in refused.err
    assert not (lab.root / "nothing").exists()


# --- files and words that change ---------------------------------------------------------------------------------------


def test_another_line_in_the_middle_of_the_jobs_is_another_run(pipe: PipeLab, lab: Lab) -> None:
    flags = ("--task", "t=[ {} = stop ] && kill -9 $PPID; echo {}", "--workers", 1, "--state-dir", lab.root / "state")
    first = pipe.run("--lines", pipe.lines("a", "b", "c"), *flags)
    assert first.code == OK
    changed = pipe.run("--lines", pipe.lines("a", "B", "c"), *flags)
    assert changed.code == USAGE and "other jobs" in changed.err and "--no-resume" in changed.err
    anew = pipe.run("--lines", pipe.lines("a", "B", "c"), *flags, "--no-resume")
    assert (anew.code, [row["result"] for row in rows(anew)]) == (OK, ["a", "B", "c"])


def test_metadata_is_remembered_by_a_distributor_that_was_killed(pipe: PipeLab, lab: Lab) -> None:
    pipe.collect()
    flags = ("--lines", pipe.numbers(3), "--task", 't=echo "$FANTAIL_METADATA"', "--metadata")
    distributor = pipe.distribute(*flags)
    lab.wait_until(lambda: "distributor started" in distributor.stderr(), "the distributor is up")
    assert pipe.ask("metadata", '{"scale": 3}', "--connect", pipe.distributor).code == OK
    distributor.kill9()
    distributor = pipe.distribute(*flags)
    pipe.work("w")
    assert distributor.wait_exit() == OK
    assert [row["result"] for row in pipe.results()] == [{"scale": 3}] * 3


def test_a_collector_killed_before_it_could_say_that_it_has_finished_says_so_when_it_is_back(pipe: PipeLab, lab: Lab) -> None:
    flags = ("--lines", pipe.numbers(3), "--task", "t=echo {}")
    distributor = pipe.distribute(*flags)
    collector = pipe.collect("--result-ttl", 3600)  # it stays, and is not through with the run
    pipe.work("w")
    assert distributor.wait_exit() == OK
    collector.kill9()
    collector = pipe.collect()
    lab.wait_until(lambda: "collector started" in collector.stderr(), "it is back")
    time.sleep(2)  # part of what is tried: the distributor needs a while to find it again
    distributor = pipe.distribute(*flags)
    assert (distributor.wait_exit(), collector.wait_exit()) == (OK, OK)
    assert "told again that a run is finished" in collector.stderr()


# --- workers that hang, hosts that go ----------------------------------------------------------------------------------


def test_a_function_that_hangs_past_the_hard_timeout_loses_its_job(pipe: PipeLab, lab: Lab) -> None:
    distributor = pipe.distribute(
        "--lines", pipe.numbers(6), "--task", "t=true", "--timeout", 0.3, "--hard-timeout", 0.6, "--retries", 3, "--back-off", 0.1
    )
    collector = pipe.collect()
    hangs = pipe.quick_worker("hangs", 1, 3_600_000_000)
    lab.wait_until(lambda: pipe.joined(distributor, "hangs"), "it is there")
    pipe.quick_worker("works", 1, 1000)
    assert (distributor.wait_exit(), collector.wait_exit()) == (OK, OK)
    results = pipe.results()
    assert sorted(row["result"] for row in results) == list(range(1, 7))
    assert {row["worker"] for row in results} == {"works"} and max(row["attempt"] for row in results) > 1
    hangs.kill9()


def test_map_over_three_hosts_of_which_one_goes_and_another_comes(pipe: PipeLab, lab: Lab, netlab: Netlab) -> None:
    """Z26: results in order, each once, from whatever hosts there are at the time."""
    home, *others = netlab.up(3)
    pipe.host = home.address
    run = pipe.agent(
        "map", "sleep 0.02; echo {} $(hostname -I)", "--lines", pipe.numbers(400), "--workers", 1,
        "--endpoint", pipe.distributor, "--collect-at", pipe.collector, place=home,
    )  # fmt: skip

    def help_from(number: int) -> None:
        pipe.work(f"host{number}", place=others[number])

    def has_helped(number: int) -> bool:
        return any(others[number].address in line.split()[1:] for line in map(bytes.decode, run.lines()))

    help_from(0)
    lab.wait_until(lambda: has_helped(0), "the second host works")
    netlab.cut(others[0])
    help_from(1)
    lab.wait_until(lambda: has_helped(1), "the third host works")
    assert run.wait_exit(120) == OK
    assert [int(line.split()[0]) for line in run.lines()] == list(range(1, 401))
    netlab.heal(others[0])


def test_an_interrupt_from_the_keyboard_lets_a_run_finish_what_is_going_on(pipe: PipeLab, lab: Lab) -> None:
    """The terminal sends it to all processes of the run, workers and jobs among them."""
    going = lab.root / "going"
    place = Place(LOOPBACK.address, LOOPBACK.interface, ("setsid",))
    run = pipe.agent("run", "--lines", pipe.numbers(2), "--task", f"t=touch {going}{{}}; sleep 1; echo {{}}", "--workers", 2,
                     place=place)  # fmt: skip
    lab.wait_until(lambda: all(Path(f"{going}{n}").exists() for n in (1, 2)), "it works")
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait_exit() == OK
    assert sorted(json.loads(line)["result"] for line in run.lines()) == [1, 2]
