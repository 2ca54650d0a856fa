"""Runs of fantail-pipeline for tests: a distributor, a collector and workers, each a process that a test may kill."""

from __future__ import annotations

import json
from pathlib import Path

from fantail_lab import LOOPBACK, Agent, Argument, Finished, Lab, Place

PROGRAM = "fantail-pipeline"


class PipeLab:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.port = lab.ports.take(6)
        self.host = "127.0.0.1"
        self._number = 0

    @property
    def distributor(self) -> str:
        return f"tcp://{self.host}:{self.port}"

    @property
    def collector(self) -> str:
        return f"tcp://{self.host}:{self.port + 1}"

    @property
    def published(self) -> str:
        return f"tcp://{self.host}:{self.port + 3}"

    @property
    def output(self) -> Path:
        return self.lab.root / "results.jsonl"

    def lines(self, *lines: str | bytes) -> Path:
        path = self.lab.root / "lines"
        path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
        return path

    def numbers(self, count: int) -> Path:
        return self.lines(*map(str, range(1, count + 1)))

    def agent(self, *words: Argument, name: str = "", place: Place = LOOPBACK, program: str = PROGRAM) -> Agent:
        self._number += 1
        agent = self.lab.bare(program, *words, name=name or f"{words[0]}-{self._number}", place=place)
        agent.may_end = True
        agent.start()
        return agent

    def distribute(self, *flags: Argument, place: Place = LOOPBACK) -> Agent:
        return self.agent(
            "distribute", "--endpoint", self.distributor, "--collector", self.collector,
            "--state-dir", self.lab.root / "distributor", *flags, place=place,
        )  # fmt: skip

    def collect(self, *flags: Argument, place: Place = LOOPBACK) -> Agent:
        return self.agent(
            "collect", "--endpoint", self.collector, "--state-dir", self.lab.root / "collector",
            "--output", self.output, *flags, place=place,
        )  # fmt: skip

    def work(self, name: str, *flags: Argument, place: Place = LOOPBACK) -> Agent:
        return self.agent("work", "--connect", self.distributor, "--name", name, *flags, place=place)

    def quick_worker(self, name: str, threads: int, microseconds: int) -> Agent:
        """With a function that takes so long, instead of commands; its result is the job."""
        return self.agent("worker", self.distributor, name, threads, microseconds, name=name, program="pipeline_load")

    def run(self, *flags: Argument, deadline: float = 60, stdin: bytes | None = None) -> Finished:
        return self.lab.run(PROGRAM, "run", *flags, deadline=deadline, stdin=stdin)

    def ask(self, command: str, *words: Argument) -> Finished:
        return self.lab.run(PROGRAM, command, *words, deadline=30)

    def results(self, path: Path | None = None) -> list[dict]:
        path = path or self.output
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def joined(self, distributor: Agent, name: str) -> bool:
        return f"worker joined peer={name} " in distributor.stderr()


def rows(finished: Finished) -> list[dict]:
    return [json.loads(line) for line in finished.out.splitlines()]
