"""The log of a torture run, one JSON object a line: what was to be done, what was done, what came of it. A log replays."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from torture_plan import Step


@dataclass(frozen=True)
class Run:
    """What makes a run; the same makes the same."""

    seed: int
    minutes: float
    transport: str
    without: tuple[str, ...]
    hold_time: float


class Report:
    """Writes the log; says on stdout what a reader wants to follow."""

    def __init__(self, path: Path, run: Run) -> None:
        self._file = path.open("w")
        self._begin = time.monotonic()
        self._write({"run": run.__dict__})
        self.path = path

    def step(self, step: Step, done: str) -> None:
        self._write({"step": step.to_record(), "done": done})

    def note(self, text: str) -> None:
        self._write({"note": text})
        print(f"torture: {text}", flush=True)

    def _write(self, record: dict) -> None:
        # Whole at any moment: what is there when the run is interrupted is what was done.
        self._file.write(json.dumps({"at": round(time.monotonic() - self._begin, 3), **record}) + "\n")
        self._file.flush()


def read_log(path: Path) -> tuple[Run, list[Step]]:
    """The run and its steps; lines may have been taken out, to find those that matter."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    run = next(record["run"] for record in records if "run" in record)
    steps = [Step(**record["step"]) for record in records if "step" in record]
    return Run(**(run | {"without": tuple(run["without"])})), steps
