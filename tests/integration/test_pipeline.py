"""fantail-pipeline run, distribute, collect and work: each job's result once, whatever happens to the processes.

The ids are the rows of docs/parity.md.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fantail_lab import LOOPBACK, Lab, Place
from fantail_netlab import Netlab
from fantail_pipelab import PipeLab, rows
from test_full_disk import SmallDisk

OK = 0
FAILED = 1
USAGE = 2


@pytest.fixture
def pipe(lab: Lab) -> PipeLab:
    return PipeLab(lab)


# --- run ---------------------------------------------------------------------------------------------------------------


def test_p8_run_prints_a_line_for_each_job(pipe: PipeLab) -> None:
    lines = pipe.lines("plain", "two words", "it's", '"quoted" $HOME `x` ;|&', "", "ünïcode")
    done = pipe.run("--lines", lines, "--task", "t=printf '%s|' {}; cat", "--workers", 2, "--keep-order")
    assert done.code == OK, done
    got = rows(done)
    assert [row["id"] for row in got] == [f"t:{n}" for n in range(1, 7)]
    wanted = lines.read_text().splitlines()
    assert [row["result"] for row in got] == [f"{line}|{line}" for line in wanted]
    assert all((row["task"], row["attempt"], row["exit"]) == ("t", 1, 0) and row["seconds"] > 0 for row in got)


def test_the_command_is_told_who_it_is(pipe: PipeLab) -> None:
    done = pipe.run(
        "--lines", pipe.numbers(2), "--workers", 1, "--keep-order",
        "--task", 't=echo "[\\"$FANTAIL_JOB_ID\\", \\"$FANTAIL_TASK\\", $FANTAIL_ATTEMPT]"',
    )  # fmt: skip
    assert [row["result"] for row in rows(done)] == [["t:1", "t", 1], ["t:2", "t", 1]]


def test_lines_may_be_any_bytes(pipe: PipeLab) -> None:
    lines = pipe.lines(b"\xff\xfe raw", b"x" * 100_000)
    done = pipe.run("--lines", lines, "--task", "t=wc -c", "--workers", 1, "--keep-order")
    assert done.code == OK, done
    assert [row["result"] for row in rows(done)] == [7, 100_001]


def test_p5_a_task_begins_when_all_of_the_one_before_is_done(pipe: PipeLab) -> None:
    done = pipe.run(
        "--lines", pipe.numbers(60), "--workers", 2, "--threads", 4,
        "--task", "a=date +%s.%N", "--task", "b=date +%s.%N", "--after", "a",
    )  # fmt: skip
    assert done.code == OK, done
    got = rows(done)
    ended = {task: [row["started"] + row["seconds"] for row in got if row["task"] == task] for task in "ab"}
    begun = {task: [row["started"] for row in got if row["task"] == task] for task in "ab"}
    assert len(begun["a"]) == len(begun["b"]) == 60
    assert min(begun["b"]) + 0.002 >= max(ended["a"]), "begun before the last of the task before it had ended"


def test_p7_a_worker_that_is_ten_times_slower_gets_its_share(pipe: PipeLab, lab: Lab) -> None:
    pipe.quick_worker("quick", 1, 4_000)
    pipe.quick_worker("slow", 1, 40_000)
    distributor = pipe.distribute("--lines", pipe.numbers(600), "--task", "t=true", "--metadata")
    pipe.collect()
    lab.wait_until(lambda: "distributor started" in distributor.stderr(), "the distributor is up")
    assert pipe.ask("metadata", '{"go": true}', "--connect", pipe.distributor).code == OK
    assert distributor.wait_exit() == OK
    of_slow = sum(row["worker"] == "slow" for row in pipe.results())
    assert 600 / 11 * 0.5 < of_slow < 600 / 11 * 1.6, of_slow


def test_a_failing_job_is_tried_again_and_others_go_on(pipe: PipeLab, lab: Lab) -> None:
    state = lab.root / "state"
    done = pipe.run(
        "--lines", pipe.numbers(20), "--retries", 2, "--back-off", 0.05, "--workers", 2, "--state-dir", state,
        "--task", "t=case {} in 7) [ $FANTAIL_ATTEMPT -gt 2 ];; 13) echo broken >&2; exit 5;; esac && echo {}",
    )  # fmt: skip
    assert done.code == FAILED and "1 of 20 jobs were given up" in done.err, done
    got = {row["id"]: row for row in rows(done)}
    assert len(got) == 20
    assert (got["t:7"]["attempt"], got["t:7"]["exit"]) == (3, 0)
    assert (got["t:13"]["exit"], got["t:13"]["error"], got["t:13"]["result"]) == (5, "broken", None)
    dead = ("--state-dir", state / "distributor")
    (letter,) = map(json.loads, pipe.ask("dead", "list", *dead).out.splitlines())
    assert (letter["id"], letter["attempts"], letter["exit"], letter["job"]) == ("t:13", 3, 5, "13")
    assert pipe.ask("dead", "requeue", "t:13", *dead).code == OK
    assert pipe.ask("dead", "list", *dead).out == ""


def test_a_job_that_kills_its_worker_is_found_out(pipe: PipeLab) -> None:
    done = pipe.run(
        "--lines", pipe.numbers(60), "--workers", 2, "--threads", 2, "--max-crashes", 2, "--back-off", 0.05,
        "--task", "t=[ {} = 31 ] && kill -9 $PPID; sleep 0.01; echo {}",
    )  # fmt: skip
    got = rows(done)
    assert done.code == FAILED and len(got) == 60
    assert [row["id"] for row in got if row["result"] is None] == ["t:31"]


def test_a_job_that_hangs_is_ended_then_taken_away(pipe: PipeLab) -> None:
    done = pipe.run("--lines", pipe.numbers(6), "--workers", 1, "--timeout", 0.3, "--task", "t=[ {} = 3 ] && sleep 60; echo {}")
    got = {row["id"]: row for row in rows(done)}
    assert done.code == FAILED and len(got) == 6
    assert "timeout" in got["t:3"]["error"] and got["t:4"]["result"] == 4


def test_a_job_that_its_worker_cannot_end_is_taken_away(pipe: PipeLab, lab: Lab) -> None:
    distributor = pipe.distribute("--lines", pipe.numbers(1), "--task", "t=true", "--hard-timeout", 0.5, "--max-crashes", 1)
    pipe.collect()
    pipe.quick_worker("endless", 1, 3600_000_000)
    lab.wait_until(lambda: "taken away from it" in distributor.stderr(), "its time is over")
    assert distributor.wait_exit() == FAILED


def test_interrupted_it_finishes_what_is_going_on_and_goes_on_later(pipe: PipeLab, lab: Lab) -> None:
    command = ("run", "--lines", pipe.numbers(400), "--task", "t=sleep 0.02; echo {}", "--workers", 2)
    state = ("--state-dir", lab.root / "state")
    first = pipe.agent(*command, *state)
    lab.wait_until(lambda: len(first.lines()) > 20, "some are done")
    first.ask_to_end()
    assert first.wait_exit() == FAILED
    assert "run it again to go on" in first.stderr()
    before = len(first.lines())
    assert before < 400
    again = pipe.run(*command[1:], *state)
    assert again.code == OK
    assert sorted(row["result"] for row in rows(again)) == list(range(1, 401)), "each once, those of before too"
    assert sum(row["attempt"] > 1 for row in rows(again)) <= 8, "what was finished is not done again"


def test_halt_soon_ends_after_the_first_failure(pipe: PipeLab) -> None:
    done = pipe.run(
        "--lines", pipe.numbers(300), "--workers", 1, "--halt", "soon,fail=1", "--task", "t=[ {} != 5 ] && sleep 0.01"
    )
    assert done.code == FAILED and "ended before it was complete" in done.err
    assert 5 <= len(rows(done)) < 60


@pytest.mark.parametrize("kept", (False, True))
def test_it_can_be_interrupted_while_it_reads_stdin(lab: Lab, kept: bool) -> None:
    flags = ("--state-dir", lab.root / "state") if kept else ()
    words = ("run", "--lines", "-", "--task", "t=cat", *flags)
    with subprocess.Popen([lab.bin_dir / "fantail-pipeline", *words], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as reader:
        assert reader.stdin is not None
        reader.stdin.write(b"a line\n" * 100_000)  # more than a pipe holds: it is reading when this returns
        reader.send_signal(signal.SIGINT)
        try:
            assert reader.wait(60) == (-signal.SIGINT if kept else FAILED)
        finally:
            reader.kill()


@pytest.mark.parametrize("words", (("map", "cat"), ("run", "--lines", "-", "--task", "t=cat")))
def test_lines_of_a_pipe_are_jobs_before_it_ends(lab: Lab, words: tuple[str, ...]) -> None:
    program = subprocess.Popen(
        [lab.bin_dir / "fantail-pipeline", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with program as running:
        assert running.stdin is not None and running.stdout is not None and running.stderr is not None
        try:
            for number in range(1, 4):  # each is written when the result of the one before is there
                running.stdin.write(b"%d\n" % number)
                running.stdin.flush()
                line = json.loads(running.stdout.readline())
                assert (line if words[0] == "map" else line["result"]) == number
            running.stdin.write(b"without an end")
            running.stdin.close()
            assert b"without an end" in running.stdout.readline()
            assert (running.wait(60), running.stderr.read()) == (OK, b"")
        finally:
            running.kill()


def test_a_source_without_end_is_read_no_further_than_it_must(lab: Lab) -> None:
    endless = subprocess.Popen(["yes", "a line of a source that does not end"], stdout=subprocess.PIPE)
    with endless as source:
        try:
            shown = subprocess.run(
                f"{lab.bin_dir / 'fantail-pipeline'} map cat --workers 1 | head -3", shell=True, stdin=source.stdout,
                stdout=subprocess.PIPE, timeout=60, check=True,
            )  # fmt: skip
        finally:
            source.kill()
    assert shown.stdout == b"a line of a source that does not end\n" * 3


def test_a_line_that_is_too_long_is_a_job_that_fails_and_no_other(pipe: PipeLab) -> None:
    done = pipe.run("--lines", "-", "--task", "t=cat", "--keep-order", stdin=b"before\n" + b"x" * 3_000_000 + b"\nbehind\n")
    assert done.code == FAILED
    before, too_long, behind = rows(done)
    assert (before["result"], behind["result"]) == ("before", "behind")
    assert "line 2 is longer than 1 MiB" in too_long["error"]


@pytest.mark.parametrize("order", ((), ("--keep-order",)))
def test_halt_now_prints_every_result_that_is_there(pipe: PipeLab, lab: Lab, order: tuple[str, ...]) -> None:
    """The first job never ends, and in the order of the jobs all others wait for it."""
    log = lab.root / "joblog"
    done = pipe.run(
        "--lines", pipe.numbers(400), "--workers", 2, "--threads", 2, "--halt", "now,done=200", "--joblog", log, *order,
        "--task", "t=[ {} != 1 ] || exec sleep 1000; echo {}",
    )  # fmt: skip
    assert done.code == FAILED
    printed = [row["result"] for row in rows(done)]
    logged = {int(line.split("\t")[0]) for line in log.read_text().splitlines()[1:]}
    assert len(logged) >= 200 and logged <= set(printed), "every result that counts"
    assert len(set(printed)) == len(printed) and 1 not in printed
    assert not order or printed == sorted(printed)


def test_halt_now_prints_what_waits_for_who_reads_it(pipe: PipeLab, lab: Lab) -> None:
    log = lab.root / "joblog"
    words = ("--lines", pipe.numbers(400), "--workers", 2, "--halt", "now,done=200", "--joblog", log, "--task", "t=printf %01000d {}")
    program = [lab.bin_dir / "fantail-pipeline", "run", *map(str, words)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        assert run.stdout is not None
        lab.wait_until(lambda: log.exists() and log.read_bytes().count(b"\n") > 200, "so many are done")
        printed = {int(json.loads(line)["result"]) for line in run.stdout}
        assert run.wait(60) == FAILED
    assert {int(line.split("\t")[0]) for line in log.read_text().splitlines()[1:]} <= printed


def test_halt_with_the_last_of_the_jobs_is_no_failure(pipe: PipeLab) -> None:
    done = pipe.run("--lines", pipe.numbers(20), "--workers", 1, "--halt", "now,done=20", "--task", "t=true")
    assert (done.code, len(rows(done))) == (OK, 20), done


def test_the_joblog_has_the_columns_of_parallel(pipe: PipeLab, lab: Lab) -> None:
    log = lab.root / "joblog"
    pipe.run("--lines", pipe.numbers(5), "--workers", 1, "--joblog", log, "--task", "t=[ {} != 3 ] || exit 9")
    head, *table = [line.split("\t") for line in log.read_text().splitlines()]
    assert head == "Seq Host Starttime JobRuntime Send Receive Exitval Signal Command".split()
    by_number = {int(row[0]): row for row in table}
    assert set(by_number) == set(range(1, 6))
    assert by_number[3][1] == by_number[2][1] != "-" and 0 < float(by_number[3][3]) < 60, "of one that failed, too"
    assert by_number[3][6] == "9" and by_number[2][6] == "0" and by_number[2][8] == "[ 2 != 3 ] || exit 9"


def test_map_prints_results_in_the_order_of_the_lines(pipe: PipeLab, lab: Lab) -> None:
    given = "".join(f"{n}\n" for n in range(200)).encode()
    done = lab.run("fantail-pipeline", "map", "sleep 0.00$(({} % 7)); echo $(({} * {}))", "--workers", 3, "--threads", 2, stdin=given)
    assert (done.code, done.out.split()) == (OK, [str(n * n) for n in range(200)])


def test_workers_come_and_go_while_it_runs_and_results_are_fetched_by_id(pipe: PipeLab, lab: Lab) -> None:
    """Z26"""
    run = pipe.agent(
        "run", "--lines", pipe.numbers(300), "--task", "t=sleep 0.02; echo {}", "--workers", 2, "--result-ttl", 600,
        "--endpoint", pipe.distributor, "--collect-at", pipe.collector,
    )  # fmt: skip
    for count, upto in ((8, 80), (1, 160)):
        lab.wait_until(lambda upto=upto: len(run.lines()) > upto, "some are done")
        assert pipe.ask("workers", count, "--connect", pipe.distributor).code == OK
    lab.wait_until(lambda: len(run.lines()) == 300, "all are done")
    fetched = pipe.ask("result", "t:77", "--connect", pipe.collector)
    assert json.loads(fetched.out)["result"] == 77
    missing = pipe.ask("result", "t:301", "--connect", pipe.collector)
    assert missing.code == FAILED and "t:301" in missing.err
    run.ask_to_end()
    run.wait_exit()
    assert sorted(json.loads(line)["result"] for line in run.lines()) == list(range(1, 301))


def test_a_worker_that_is_told_to_end_finishes_what_it_has_begun(pipe: PipeLab, lab: Lab) -> None:
    began, gate = lab.root / "began", lab.root / "gate"
    distributor = pipe.distribute(
        "--lines", pipe.numbers(1), "--task", f"t=echo {{}} >>{began}; while ! [ -e {gate} ]; do sleep .05; done; echo {{}}"
    )
    collector = pipe.collect()
    worker = pipe.work("w")
    lab.wait_until(began.exists, "the command runs")
    pipe.work("other")
    lab.wait_until(lambda: pipe.joined(distributor, "other"), "another is there")
    worker.ask_to_end()
    gate.touch()
    assert worker.wait_exit() == OK
    assert distributor.wait_exit() == OK
    assert collector.wait_exit() == OK
    assert [row["worker"] for row in pipe.results()] == ["w"]
    assert began.read_text() == "1\n"


def sleepers(seconds: str) -> list[str]:
    """Processes that sleep for exactly this long."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "cmdline").read_bytes() == f"sleep\0{seconds}\0".encode():
                    found.append(entry.name)
    return found


@pytest.mark.parametrize(("threads", "upto"), [(1, 2), (100, 1)], ids=["while it runs", "while it begins"])
def test_no_command_outlives_a_killed_run(pipe: PipeLab, lab: Lab, threads: int, upto: int) -> None:
    mark = f"3600.{os.getpid()}{threads}"
    run = pipe.agent("run", "--lines", pipe.numbers(400), "--workers", 2, "--threads", threads, "--task", f"t=exec sleep {mark}")
    lab.wait_until(lambda: len(sleepers(mark)) >= upto, "commands are going on")
    run.kill9()
    lab.wait_until(lambda: not sleepers(mark), "they have ended")


def test_no_command_outlives_a_killed_run_although_it_left_its_process_group(pipe: PipeLab, lab: Lab) -> None:
    mark = f"3600.{os.getpid()}7"
    run = pipe.agent("run", "--lines", pipe.numbers(4), "--workers", 2, "--task", f"t=setsid -w sleep {mark}")
    lab.wait_until(lambda: len(sleepers(mark)) == 2, "commands are going on")
    run.kill9()
    lab.wait_until(lambda: not sleepers(mark), "they have ended")


def test_no_command_outlives_a_killed_worker(pipe: PipeLab, lab: Lab) -> None:
    mark = f"3600.{os.getpid()}5"
    pipe.distribute("--lines", pipe.numbers(4), "--task", f"t=exec sleep {mark}")
    pipe.collect()
    worker = pipe.work("w", "--threads", 2)
    lab.wait_until(lambda: len(sleepers(mark)) == 2, "commands are going on")
    worker.kill9()
    lab.wait_until(lambda: not sleepers(mark), "they have ended")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_no_command_outlives_a_killed_run_with_a_closed_descriptor(pipe: PipeLab, lab: Lab, closed: str) -> None:
    mark = f"3600.{os.getpid()}{ord(closed[0])}"
    program = lab.bin_dir / "fantail-pipeline"
    shell = subprocess.Popen(
        ["sh", "-c", f"exec {program} run --lines {pipe.numbers(4)} --workers 2 --task 't=exec sleep {mark}' {closed}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        lab.wait_until(lambda: len(sleepers(mark)) >= 2, "commands are going on")
    finally:
        shell.kill()
        shell.wait()
    lab.wait_until(lambda: not sleepers(mark), "they have ended")


def test_what_is_complete_is_printed_again_and_ends(pipe: PipeLab, lab: Lab) -> None:
    command = ("--lines", pipe.numbers(50), "--task", "t=echo {}", "--keep-order", "--state-dir", lab.root / "state")
    first, second = pipe.run(*command), pipe.run(*command)
    assert (first.code, second.code) == (OK, OK)
    assert second.out == first.out and len(rows(second)) == 50


def test_what_was_requeued_afterwards_is_done_and_what_waited_for_it_too(pipe: PipeLab, lab: Lab) -> None:
    flag, state = lab.root / "flag", lab.root / "state"
    command = (
        "--lines", pipe.numbers(20), "--task", f"t=[ {{}} != 7 ] || [ -e {flag} ] && echo {{}}",
        "--task", "u=echo u{}", "--after", "t", "--state-dir", state, "--workers", 1,
    )  # fmt: skip
    assert pipe.run(*command).code == FAILED
    flag.touch()
    assert pipe.ask("dead", "requeue", "--state-dir", state / "distributor").code == OK
    again = pipe.run(*command)
    assert again.code == OK, again
    assert sorted(row["id"] for row in rows(again)) == sorted(f"{t}:{n}" for t in "tu" for n in range(1, 21))


def test_what_was_requeued_afterwards_makes_another_stream_of_all_results(pipe: PipeLab, lab: Lab) -> None:
    flag, mirror = lab.root / "flag", lab.root / "mirror"
    command = ("--lines", pipe.numbers(20), "--retries", 0, "--task", f"t=[ {{}} != 7 ] || [ -e {flag} ] && echo {{}}")
    pipe.collect("--stay")
    consumer = lab.bare(
        "fantail-consumer", "--connect", pipe.published, "--topic", "results", "--output", f"mirror:{mirror}"
    )
    consumer.start()
    results = lambda: sorted(len(p.read_bytes().splitlines()) for p in mirror.rglob("t.jsonl*"))  # noqa: E731
    pipe.work("w")
    assert pipe.distribute(*command).wait_exit() == FAILED
    lab.wait_until(lambda: results() == [19], "the consumer has the others")
    flag.touch()
    assert pipe.ask("dead", "requeue", "--state-dir", lab.root / "distributor").code == OK
    pipe.work("again")
    assert pipe.distribute(*command).wait_exit() == OK
    lab.wait_until(lambda: results() == [19, 20], "the consumer has another stream with all of them")


def test_map_prints_what_the_command_printed(lab: Lab) -> None:
    given = b'12345678901234567890123\n1.10\n1e3\n"abc"\n{"b": 1, "a": 2}\n\xff\xfez\n\n null\n'
    done = subprocess.run(
        [lab.bin_dir / "fantail-pipeline", "map", "cat"], input=given, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (OK, given)


def test_two_long_jobs_are_for_two_workers(pipe: PipeLab) -> None:
    done = pipe.run("--lines", pipe.numbers(2), "--workers", 2, "--task", "t=sleep 2; echo {}")
    first, second = rows(done)
    assert first["worker"] != second["worker"]


# --- on several hosts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations("dcw")), ids="".join)
def test_p16_any_order_of_start(pipe: PipeLab, lab: Lab, order: tuple[str, ...]) -> None:
    lines = pipe.numbers(30)
    begin = {
        "d": lambda: pipe.distribute("--lines", lines, "--task", "t=echo {}"),
        "c": lambda: pipe.collect(),
        "w": lambda: pipe.work("w"),
    }
    said = {"d": "distributor started", "c": "collector started", "w": "worker started"}
    agents = {}
    for who in order:
        agents[who] = begin[who]()
        lab.wait_until(lambda who=who: said[who] in agents[who].stderr(), f"{who} is up")
    assert [agents[who].wait_exit() for who in "dcw"] == [OK, OK, OK]
    assert sorted(row["result"] for row in pipe.results()) == list(range(1, 31))


def test_p11_no_job_before_the_metadata(pipe: PipeLab, lab: Lab) -> None:
    pipe.collect()
    worker = pipe.work("w")
    distributor = pipe.distribute("--lines", pipe.numbers(3), "--task", 't=echo "$FANTAIL_METADATA"', "--metadata")
    lab.wait_until(lambda: "distributor started" in distributor.stderr(), "the distributor is up")
    assert "joined" not in worker.stderr()
    assert pipe.ask("metadata", '{"scale": 3}', "--connect", pipe.distributor).code == OK
    assert distributor.wait_exit() == OK
    assert [row["result"] for row in pipe.results()] == [{"scale": 3}] * 3


def test_a_worker_without_a_distributor_ends_when_it_is_told(pipe: PipeLab, lab: Lab) -> None:
    worker = pipe.work("w", "--drain", 3600)
    lab.wait_until(lambda: "worker started" in worker.stderr(), "it is up")
    assert worker.terminate() == OK


def test_a_second_worker_of_the_same_name_is_refused(pipe: PipeLab, lab: Lab) -> None:
    distributor = pipe.distribute("--lines", pipe.numbers(20), "--task", "t=sleep 0.5; echo {}")
    pipe.collect()
    pipe.work("same")
    lab.wait_until(lambda: pipe.joined(distributor, "same"), "the first is there")
    second = pipe.work("same")
    assert second.wait_exit() == FAILED and "give this one another --name" in second.stderr()
    assert distributor.wait_exit() == OK
    assert len(pipe.results()) == 20


def test_a_worker_that_stood_still_past_its_lease_is_not_counted_twice(pipe: PipeLab, lab: Lab) -> None:
    distributor = pipe.distribute("--lines", pipe.numbers(40), "--task", "t=true", "--back-off", 0.1)
    collector = pipe.collect("--stay")
    stopped = pipe.quick_worker("stopped", 2, 300_000)
    lab.wait_until(lambda: pipe.joined(distributor, "stopped"), "it is there")
    lab.wait_until(lambda: len(pipe.results()) >= 2, "it works")
    stopped.freeze()
    lab.wait_until(lambda: "worker gone peer=stopped" in distributor.stderr(), "its lease is over")
    pipe.quick_worker("other", 4, 20_000)
    lab.wait_until(lambda: len(pipe.results()) == 40, "the other one does all")
    stopped.thaw()
    assert distributor.wait_exit() == OK
    status = lambda: json.loads(pipe.ask("status", "--connect", pipe.collector).out)  # noqa: E731
    assert sorted(row["result"] for row in pipe.results()) == list(range(1, 41))
    assert status()["runs"][0]["tasks"] == {"t": 40}
    lab.wait_until(lambda: status()["dropped"] > 0, "what it has done all the same is dropped and counted")
    collector.ask_to_end()


def doomed_run(pipe: PipeLab, lab: Lab, seed: int, jobs: int) -> None:
    """A run during which everybody is killed at random, and started again."""
    chance = random.Random(seed)
    lines = pipe.numbers(jobs)
    flags = ("--lines", lines, "--task", "t=true", "--back-off", 0.02, "--max-crashes", 100)
    started = itertools.count(2)
    distributor, collector = pipe.distribute(*flags), pipe.collect()
    workers = [pipe.quick_worker(f"w{n}", 2, 400) for n in (0, 1)]
    for _ in range(chance.randrange(3, 7)):
        upto = min(len(pipe.results()) + chance.randrange(jobs // 8), jobs - 1)
        lab.wait_until(lambda upto=upto: not distributor.alive or len(pipe.output.read_bytes().splitlines()) >= upto, "it goes on")
        if not distributor.alive:
            break
        who = chance.randrange(4)
        victim = (distributor, collector, *workers)[who]
        if not victim.alive:
            break
        victim.kill9()
        if victim.wait_exit() != -signal.SIGKILL:
            break  # it had done all it had to
        time.sleep(chance.choice((0, 0.05, 0.5)))  # how long it is away: part of the play, not waited for
        if who == 0:
            distributor = pipe.distribute(*flags)
        elif who == 1:
            collector = pipe.collect()
        else:
            workers[who - 2] = pipe.quick_worker(f"w{next(started)}", 2, 400)
    assert distributor.wait_exit() == OK, distributor.report()
    lab.wait_until(lambda: len(pipe.output.read_bytes().splitlines()) >= jobs, "all are in the output")
    # It ends by itself, unless it was killed with everything done: then it waits for the next run.
    lab.wait_until(lambda: not collector.alive or "collector started" in collector.stderr(), "it can be told to end")
    assert not collector.alive or collector.terminate() == OK
    got = [row["result"] for row in pipe.results()]
    assert len(got) == jobs and sorted(got) == list(range(1, jobs + 1)), f"seed {seed}: each result exactly once"


@pytest.mark.parametrize("number", range(20))
def test_p17_everybody_may_be_killed(pipe: PipeLab, lab: Lab, number: int) -> None:
    doomed_run(pipe, lab, lab.seed + number, 10_000)


def test_a_run_goes_on_with_just_as_many_results_as_are_told_at_a_time(pipe: PipeLab, lab: Lab) -> None:
    gate, state = lab.root / "gate", lab.root / "state"
    command = (
        "--lines", pipe.numbers(257), "--workers", 2, "--state-dir", state, "--joblog", lab.root / "joblog",
        "--task", f"t=while [ {{}} = 257 ] && ! [ -e {gate} ]; do sleep .05; done; echo {{}}",
    )  # fmt: skip
    run = pipe.agent("run", *command)
    done = lambda: [len(path.read_bytes().splitlines()) for path in state.rglob("t.jsonl")]  # noqa: E731
    lab.wait_until(lambda: done() == [256], "all but the last are done")
    run.kill9()
    gate.touch()
    again = pipe.run(*command)
    assert again.code == OK, again


def test_what_a_worker_still_has_stays_its_own_when_the_distributor_comes_back(pipe: PipeLab, lab: Lab) -> None:
    began, gate = lab.root / "began", lab.root / "gate"
    distributor = pipe.distribute(
        "--lines", pipe.numbers(1), "--task", f"t=echo {{}} >>{began}; while ! [ -e {gate} ]; do sleep .05; done; echo {{}}"
    )
    pipe.collect()
    pipe.work("w")
    lab.wait_until(began.exists, "the command runs")
    pipe.work("idle")
    lab.wait_until(lambda: pipe.joined(distributor, "idle"), "another is there")
    distributor.kill9()
    distributor.start()
    for name in ("idle", "w"):
        lab.wait_until(lambda name=name: distributor.stderr().count(f"worker joined peer={name} ") == 2, "they are back")
    gate.touch()
    assert distributor.wait_exit() == OK
    assert began.read_text() == "1\n", "nobody else has begun it"


def test_five_hosts_one_cut_off(pipe: PipeLab, lab: Lab, netlab: Netlab) -> None:
    home, *others = netlab.up(5)
    pipe.host = home.address
    distributor = pipe.distribute("--lines", pipe.numbers(2000), "--task", "t=true", "--back-off", 0.1, place=home)
    collector = pipe.collect(place=home)
    for n, place in enumerate(others):
        agent = lab.bare("pipeline_load", "worker", pipe.distributor, f"host{n}", 2, 60_000, name=f"host{n}", place=place)
        agent.may_end = True
        agent.start()
    lab.wait_until(lambda: all(pipe.joined(distributor, f"host{n}") for n in range(4)), "all are there")
    netlab.cut(others[0])
    lab.wait_until(lambda: "worker gone peer=host0" in distributor.stderr(), "it is missed")
    time.sleep(7)  # ten seconds in all: part of what is tried
    netlab.heal(others[0])
    lab.wait_until(lambda: distributor.stderr().count("worker joined peer=host0 ") == 2, "it is there again")
    assert distributor.wait_exit(90) == OK
    assert collector.wait_exit() == OK
    assert sorted(row["result"] for row in pipe.results()) == list(range(1, 2001))


# --- results as streams ------------------------------------------------------------------------------------------------


def test_an_output_that_cannot_be_written_is_refused_and_one_without_an_end_of_line_gets_one(pipe: PipeLab, lab: Lab) -> None:
    refused = lab.run("fantail-pipeline", "collect", "--output", lab.root / "no" / "where")
    assert refused.code == USAGE and "--output" in refused.err
    pipe.output.write_text("from before")
    distributor = pipe.distribute("--lines", pipe.numbers(40), "--task", "t=sleep 0.02; echo {}")
    collector = pipe.collect()
    pipe.work("w")
    lab.wait_until(lambda: len(pipe.output.read_text().splitlines()) > 5, "results come")
    collector.kill9()
    collector = pipe.collect()
    assert (distributor.wait_exit(), collector.wait_exit()) == (OK, OK)
    before, *lines = pipe.output.read_text().splitlines()
    assert before == "from before"
    assert sorted(json.loads(line)["result"] for line in lines) == list(range(1, 41))


@pytest.mark.slow
def test_results_wait_for_room_and_for_their_output_over_a_restart(pipe: PipeLab, lab: Lab) -> None:
    disk = lab.root / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    lab.cleanup.callback(lambda: subprocess.run(["umount", "-l", disk], check=True))
    output = disk / "results"
    distributor = pipe.distribute("--lines", pipe.numbers(60), "--task", "t=head -c 3000 /dev/zero | tr '\\0' x; echo {}")
    collector = pipe.collect("--output", output, "--drain", 0.1)
    pipe.work("w")
    assert distributor.wait_exit() == OK
    lab.wait_until(lambda: "results wait for their output" in collector.stderr(), "its disk is full")
    collector.kill9()
    collector = pipe.collect("--output", output, "--drain", 0.1)
    waits = lambda: collector.stderr().count("results wait for their output")  # noqa: E731
    lab.wait_until(lambda: waits() > 1, "it waits for room again, and for longer than for consumers")
    subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
    assert collector.wait_exit() == OK
    assert sorted(int(row["result"].strip("x")) for row in pipe.results(output)) == list(range(1, 61))


def test_results_wait_for_room_for_the_collector(pipe: PipeLab, lab: Lab) -> None:
    disk = SmallDisk(lab, lab.root / "collector")
    distributor = pipe.distribute("--lines", pipe.numbers(200), "--task", "t=head -c 100000 /dev/zero | tr '\\0' x; echo {}")
    collector = pipe.collect()
    pipe.work("w")
    lab.wait_until(lambda: "cannot write results, workers keep them" in collector.stderr(), "its disk is full")
    disk.make_space()
    assert distributor.wait_exit() == OK
    assert collector.wait_exit() == OK
    assert sorted(int(row["result"].strip("x")) for row in pipe.results()) == list(range(1, 201))


def test_who_has_many_results_unsent_takes_no_more_jobs(pipe: PipeLab, lab: Lab) -> None:
    jobs = 20_000
    distributor = pipe.distribute("--lines", pipe.numbers(jobs), "--task", "t=true")
    collector = pipe.collect()
    pipe.quick_worker("w", 1, 20)
    lab.wait_until(lambda: pipe.joined(distributor, "w"), "it is there")
    collector.freeze()
    lab.wait_until(lambda: "the collector is not there any more" in distributor.stderr(), "it is missed")
    [task] = json.loads(pipe.ask("status", "--connect", pipe.distributor).out)["tasks"]
    assert 0 < task["going_on"] < 6_000, task
    collector.thaw()
    assert distributor.wait_exit() == OK
    assert collector.wait_exit() == OK
    assert len(pipe.results()) == jobs


@pytest.mark.slow
def test_without_room_for_its_journal_a_distributor_hands_out_nothing(pipe: PipeLab, lab: Lab) -> None:
    jobs = 1000  # more than there is room for in the last page of the journal
    disk = SmallDisk(lab, lab.root / "distributor")
    began = lab.root / "began"
    began.mkdir()
    distributor = pipe.distribute("--lines", pipe.numbers(jobs), "--task", f"t=touch {began}/{{}}; echo {{}}")
    lab.wait_until(lambda: "distributor started" in distributor.stderr(), "its journal is begun")
    disk.fill()
    collector = pipe.collect()
    pipe.work("w")
    refused = lambda: distributor.stderr().count("no jobs are handed out")  # noqa: E731
    lab.wait_until(lambda: refused() > 1, "it says so, and has tried again")
    lines = (lab.root / "distributor" / "distributor.jsonl").read_bytes().splitlines()
    handed_out = {number for line in lines for _, number in json.loads(line).get("out", [])}
    assert {int(path.name) for path in began.iterdir()} <= handed_out < set(range(1, jobs + 1))
    disk.make_space()
    assert distributor.wait_exit() == OK
    assert collector.wait_exit() == OK
    assert sorted(row["result"] for row in pipe.results()) == list(range(1, jobs + 1))


def journal_of(lab: Lab, task: str = "t") -> bytes:
    (path,) = (lab.root / "collector" / "runs").glob(f"*/{task}.jsonl")
    return path.read_bytes()


def test_results_that_a_collector_lost_are_made_again(pipe: PipeLab, lab: Lab) -> None:
    """As after a loss of power: the end of its journal is not there, and its system was started anew."""
    gate = lab.root / "gate"
    distributor = pipe.distribute(
        "--lines", pipe.numbers(20), "--task", f"t=while [ {{}} = 20 ] && ! [ -e {gate} ]; do sleep .05; done; echo {{}}"
    )
    collector = pipe.collect("--stay")
    pipe.work("w", "--threads", 2)
    done = lambda: json.loads(pipe.ask("status", "--connect", pipe.distributor).out)["tasks"][0]["done"]  # noqa: E731
    lab.wait_until(lambda: done() == 19, "all but the last are acknowledged")
    collector.kill9()
    (journal,) = (lab.root / "collector" / "runs").glob("*/t.jsonl")
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:10]))
    about = journal.with_suffix(".stream")
    about.write_text(json.dumps(json.loads(about.read_text()) | {"boot": "another"}))
    collector.start()
    lab.wait_until(lambda: "the collector lost results" in distributor.stderr(), "the distributor is told")
    gate.touch()
    assert distributor.wait_exit() == OK
    assert sorted(json.loads(line)["result"] for line in journal.read_bytes().splitlines()) == list(range(1, 21))
    lab.wait_until(lambda: len(pipe.output.read_bytes().splitlines()) >= 20, "they are in the output, too")
    collector.ask_to_end()
    collector.wait_exit()
    assert sorted(row["result"] for row in pipe.results()) == list(range(1, 21))


def test_results_travel_as_a_stream_of_tcp(pipe: PipeLab, lab: Lab) -> None:
    pipe.distribute("--lines", pipe.numbers(200), "--task", "t=echo {}")
    pipe.collect("--stay")
    mirror = lab.root / "mirror"
    consumer = lab.bare(
        "fantail-consumer", "--connect", pipe.published, "--topic", "results", "--output", f"mirror:{mirror}"
    )
    consumer.start()
    pipe.work("w", "--threads", 4)
    lab.wait_until(lambda: len(pipe.results()) == 200, "all are done")
    found = lambda: [p.read_bytes() for p in mirror.rglob("t.jsonl")]  # noqa: E731
    lab.wait_until(lambda: found() == [journal_of(lab)], "the consumer has the journal, byte for byte")


@pytest.mark.epgm
def test_results_over_multicast_with_losses(pipe: PipeLab, lab: Lab, netlab: Netlab) -> None:
    home, away = netlab.up(2)
    pipe.host = home.address
    group = lab.link("epgm", [home], [away])
    pipe.distribute("--lines", pipe.numbers(3000), "--task", "t=true", place=home)
    pipe.collect("--stay", *group.producers[0].flags, place=home)
    mirror = lab.root / "mirror"
    consumer = lab.bare(
        "fantail-consumer", *group.consumers[0].flags, "--topic", "results", "--output", f"mirror:{mirror}", place=away
    )
    consumer.start()
    netlab.lose(away, 10)
    agent = lab.bare("pipeline_load", "worker", pipe.distributor, "w", 2, 1000, name="w", place=home)
    agent.may_end = True
    agent.start()
    lab.wait_until(lambda: len(pipe.results()) == 3000, "all are done")
    found = lambda: [p.read_bytes() for p in mirror.rglob("t.jsonl")]  # noqa: E731
    lab.wait_until(lambda: found() == [journal_of(lab)], "the consumer has the journal, byte for byte")


# --- what cannot be used -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "--task NAME=CMD and --lines FILE"),
        (("--task", "t=true"), "--lines FILE"),
        (("--task", "true", "--lines", "/dev/null"), "must be NAME=COMMAND"),
        (("--task", "a/b=true", "--lines", "/etc/hostname"), "letters, digits"),
        (("--lines", "/etc/hostname", "--after", "x", "--task", "t=true"), "speaks of the --task before it"),
        (("--lines", "/etc/hostname", "--task", "t=true", "--after", "x"), "'x', which is no task"),
        (("--lines", "/etc/hostname", "--task", "a=true", "--after", "b", "--task", "b=true", "--after", "a"), "wait for each other"),
        (("--lines", "/nowhere/at/all", "--task", "t=true"), "/nowhere/at/all"),
        (("--lines", "/etc/hostname", "--task", "t=true", "--halt", "now"), "--halt 'now'"),
    ],
)
def test_bad_flags_are_one_clear_error(pipe: PipeLab, flags: tuple[str, ...], words: str) -> None:
    done = pipe.run(*flags)
    assert done.code == USAGE and words in done.err, done
    assert done.out == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"tasks": [\n  {"name": "a",,}\n]}', "line 2, column 16"),
        ("[]", '"tasks"'),
        ("", "is empty"),
        ('{"tasks": [{"name": "a", "command": "true"}]}', "either 'lines' or 'jobs'"),
        ('{"tasks": [{"name": "a", "command": "true", "jobs": [1], "retry": 1}]}', "unknown member 'retry'"),
        ('{"tasks": [{"name": "a", "command": "true", "jobs": [1], "after": "b"}]}', "'b', which is no task"),
        ('{"tasks": [{"name": "a", "command": "true", "jobs": [1], "retries": "x"}]}', "task 1: 'retries'"),
        ('{"tasks": [{"name": "a", "command": "true", "jobs": [1], "retries": -1}]}', "task 1: 'retries'"),
        ('{"tasks": [{"name": "a", "command": "true", "jobs": [1], "back_off": 0}]}', "task 1: 'back_off'"),
        ('{"tasks": [{"name": "a", "command": "true", "jobs": "x"}]}', "must be an array"),
        ('{"tasks": [], "more": 1}', "unknown member 'more'"),
        ('{"tasks": [{"name": 7, "command": "true", "jobs": [1]}]}', "task 1: 'name' must be a text, not 7"),
        ('{"tasks": [{"name": "a", "command": "true", "jobs": [1], "after": ["a", 1]}]}', "'after' must be a text or an array of texts"),
        ('{"tasks": [{"name": "a", "command": "true", "jobs": [1], "one_by_one": 1}]}', "'one_by_one' must be true or false, not 1"),
        ('{"tasks": [{"name": "a", "name": "b", "command": "true", "jobs": [1]}]}', "'name' is there twice"),
        ('{"tasks": [{"name": "a", "command": "true", "jobs": [1], "timeout": 1e10}]}', "at most ten years, not 1"),
    ],
)
def test_bad_job_files_are_named_with_the_place(pipe: PipeLab, lab: Lab, text: str, words: str) -> None:
    path = lab.root / "job.json"
    path.write_text(text)
    done = pipe.run("--job", path)
    assert done.code == USAGE and words in done.err and str(path) in done.err, done


def test_a_job_file_says_all_there_is_to_say(pipe: PipeLab, lab: Lab) -> None:
    path = lab.root / "job.json"
    path.write_text(json.dumps({"tasks": [
        {"name": "make", "command": "echo {}", "jobs": ["one", {"two": 2}]},
        {"name": "use", "command": "cat", "lines": "more", "after": "make", "one_by_one": True, "retries": 1},
    ]}))  # fmt: skip
    (lab.root / "more").write_text("x\ny\n")
    done = pipe.run("--job", path, "--workers", 2, "--keep-order")
    assert done.code == OK, done
    assert [row["result"] for row in rows(done)] == ["one", {"two": 2}, "x", "y"]


def test_a_command_that_is_not_found_and_a_result_that_is_too_large(pipe: PipeLab) -> None:
    done = pipe.run(
        "--lines", pipe.numbers(3), "--workers", 1, "--keep-order",
        "--task", "t=case {} in 1) no-such-command;; 2) head -c 2000000 /dev/zero | tr '\\0' x;; *) echo fine;; esac",
    )  # fmt: skip
    first, second, third = rows(done)
    assert done.code == FAILED
    assert first["exit"] == 127 and "not found" in first["error"]
    assert "more than 1 MiB" in second["error"] and third["result"] == "fine"


def test_other_jobs_do_not_go_on_with_the_journal_of_these(pipe: PipeLab, lab: Lab) -> None:
    state = lab.root / "state"
    assert pipe.run("--lines", pipe.numbers(3), "--task", "t=true", "--state-dir", state).code == OK
    other = pipe.run("--lines", pipe.numbers(4), "--task", "t=true", "--state-dir", state)
    assert other.code == USAGE and "--no-resume" in other.err
    assert pipe.run("--lines", pipe.numbers(4), "--task", "t=true", "--state-dir", state, "--no-resume").code == OK


def test_a_wrong_key_gets_no_job(pipe: PipeLab, lab: Lab) -> None:
    ours, theirs = lab.root / "ours", lab.root / "theirs"
    for key in (ours, theirs):
        assert lab.run("fantail-state", "keygen", key).code == OK
    distributor = pipe.distribute("--lines", pipe.numbers(30), "--task", "t=sleep 0.05; echo {}", "--key-file", ours)
    pipe.collect("--key-file", ours)
    stranger = pipe.work("stranger", "--key-file", theirs)
    pipe.work("friend", "--key-file", ours)
    assert distributor.wait_exit() == OK
    assert {row["worker"] for row in pipe.results()} == {"friend"}
    assert "joined" not in stranger.stderr()
