"""The examples in examples/state, the programs and the scripts: each runs, and prints what it promises (Z28)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fantail_lab import DEADLINE, TIME_SCALE

_EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "state"


def is_text(expected: str) -> Callable[[str], bool]:
    return lambda said: said == expected


def peanuts_are_eaten(said: str) -> bool:
    buffered, live = (json.loads(line.partition(": ")[2]) for line in said.splitlines())
    return buffered == list(range(1, 21)) and live[-1] == 20 and live == sorted(set(live))


TRIES = """\
try 1: the key does not turn
try 2: the key does not turn
try 3: the shop is empty
"""

PROGRAMS: dict[str, Callable[[str], bool]] = {
    "all_sync": is_text("8 of 8 passed 3 gates together\n"),
    "async_vs_processes": is_text("the same\n"),
    "atomicity": is_text("changed my mind; 100 transfers, sum 1000000\n"),
    "cookie_eater": is_text("baked 10, eaten 10, left 0\n"),
    "cookie_eater_extreme": is_text("-49500, expected -49500\n"),
    "nested_procs": is_text('7 processes, of each level: {"level/1":1,"level/2":2,"level/3":4}\n'),
    "peanut_processor": peanuts_are_eaten,
    "remote_exceptions": lambda said: said.startswith(TRIES) and "std::out_of_range: nobody has baked" in said,
}

WATCHED = """\
all: price price ready level list level 
some: price price 
not these: ready level list level 
prefix: level list level 
truthy: ready 
equal: level 
absent: level 
test: it holds
command: 45 39 
"""  # noqa: W291

SCRIPTS: dict[str, tuple[int, Callable[[str], bool]]] = {
    "chain_reaction.sh": (5, is_text("[0,1,2,3,4]\n")),
    "luck_test.sh": (7, is_text("123456\n")),
    "state_watchers.sh": (1, lambda said: said.endswith(WATCHED)),
}


def run(bin_dir: Path, *command: str | Path) -> str:
    environment = os.environ | {"PATH": f"{bin_dir}:{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=DEADLINE * TIME_SCALE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_z28_program(bin_dir: Path, program: str) -> None:
    said = run(bin_dir, bin_dir / "examples" / program)
    assert PROGRAMS[program](said), said


@pytest.mark.parametrize("script", SCRIPTS)
def test_z28_script(bin_dir: Path, script: str) -> None:
    count, is_right = SCRIPTS[script]
    said = run(bin_dir, bin_dir / "fantail-state", "run", "--count", str(count), "--", _EXAMPLES / script)
    assert is_right(said), said


def test_z28_every_example_is_run() -> None:
    programs = {path.stem for path in _EXAMPLES.glob("*.cc")}
    scripts = {path.name for path in _EXAMPLES.glob("*.sh")}
    assert (programs, scripts) == (set(PROGRAMS), set(SCRIPTS))
