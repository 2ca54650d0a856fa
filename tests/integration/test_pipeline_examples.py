"""The examples in examples/pipeline: each runs, is right in its own eyes, and prints what it promises (P19)."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from fantail_lab import DEADLINE, TIME_SCALE

_EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "pipeline"


def is_text(expected: str) -> Callable[[str], bool]:
    return lambda said: said == expected


LOGGED = {
    "collector": {"a run has begun", "square:1 is 1", "square:2 is 4", "square:4 is 16", "that was all"},
    "distributor": {
        "acknowledgement 1",
        "acknowledgement 2",
        "acknowledgement 3",
        "given up, exit 1: std::invalid_argument: stoi",
    },
    "task": {
        "before the first job",
        'job 1 by worker: {"is":1}',
        'job 2 by worker: {"is":4}',
        'job 4 by worker: {"is":16}',
    },
    "worker": {
        "joined",
        "thread 0",
        "thread 1",
        "got square:1, '1'",
        "got square:2, '2'",
        "got square:3, 'three'",
        "got square:4, '4'",
    },
}


def everybody_logs(said: str) -> bool:
    """Each component in its own order, which is not that of the others."""
    *lines, last = said.splitlines()
    logged: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        who, what = line.split(maxsplit=1)
        logged[who].append(what)
    return (
        {who: set(what) for who, what in logged.items()} == LOGGED
        and len(lines) == sum(len(what) for what in LOGGED.values())
        and (logged["collector"][0], logged["collector"][-1]) == ("a run has begun", "that was all")
        and logged["task"][0] == "before the first job"
        and logged["worker"][0] == "joined"
        and last == "3 of 4 jobs done, 1 given up"
    )


PROGRAMS: dict[str, Callable[[str], bool]] = {
    "dependencies": is_text("4 of 4 guests were served all 6 dishes\n"),
    "logging": everybody_logs,
    "mapper": is_text("100000 results, as if they were made in a row\n"),
    "metadata": is_text('task, worker and collector were told {"factor":3,"title":"by three"}: 165\n'),
    "multithread": is_text("50 jobs by 10 threads: pi is about 3.1\n"),
    "sequential": is_text("12 steps, one by one: 12274, expected 12274\n"),
    "service": is_text("360 = 2*2*2*3*3*5, 84/2 = 42, 1/0: division_by_zero\n"),
    "singlethread": is_text("168 of 1000 are prime; sieves made: 1, threads: 1\n"),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_p19_program(bin_dir: Path, program: str) -> None:
    done = subprocess.run(
        [bin_dir / "examples" / program], capture_output=True, text=True, timeout=DEADLINE * TIME_SCALE
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert PROGRAMS[program](done.stdout), done.stdout


def test_p19_every_example_is_run() -> None:
    assert {path.stem for path in _EXAMPLES.glob("*.cc")} == set(PROGRAMS)
