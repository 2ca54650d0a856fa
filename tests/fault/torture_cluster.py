"""The programs of a torture run: where they run, who is up, what a producer could see when."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from fantail_faults import FailingCalls
from fantail_lab import LOOPBACK, Agent, Consumer, Lab, Link, Place, PortPool
from fantail_netlab import Netlab
from torture_plan import CONSUMERS, NODES
from torture_world import World

SYNC_SECONDS = "1"  # as by default: so much is not committed when a consumer is killed
DISK_BYTES = 4 << 30  # of the file system in memory under each program; taken only as it is used
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
_START_SECONDS = 3.0
_MAY_END_WITH = {"producer": (0,), "consumer": (0, 3)}


class TortureFailure(Exception):
    """A promise was broken; the text says which."""


@dataclass
class Program:
    """One program, and what is being done to it."""

    agent: Agent
    place: Place
    clock: Path  # read by libfaketime
    disk: Path  # a file system of its own, where that can be mounted
    calls: FailingCalls | None = None
    down_for: set[int] = field(default_factory=set)  # the faults that keep it from running
    frozen_for: set[int] = field(default_factory=set)
    disturbed_for: set[int] = field(default_factory=set)  # its disk is full or fails: it may end by itself
    disturbed_since_start: bool = False
    ending: bool = False  # it was told to end
    started_at: float = 0.0

    @property
    def kind(self) -> str:
        return self.agent.name.partition("-")[0]

    @property
    def node(self) -> str:
        return self.agent.name.partition("-")[2]


@dataclass
class Interval:
    begin: float
    end: float | None = None


class Cluster:
    """Two producers and two consumers, on hosts of their own where networks can be made, else on loopback."""

    def __init__(self, lab: Lab, world: World, transport: str, hosts: list[Place], shim: Path, seed: int) -> None:
        self.lab = lab
        self.world = world
        self.programs: dict[str, Program] = {}
        self.in_sight: dict[str, list[Interval]] = {node: [] for node in NODES}  # the producer runs and can record files
        self.down: dict[str, list[Interval]] = {node: [] for node in NODES}  # it does not run
        self.ended_by_themselves = 0
        places = hosts or [LOOPBACK] * (len(NODES) + len(CONSUMERS))
        link = lab.link(transport, places[: len(NODES)], places[len(NODES) :])
        self._add_consumers(link, places[len(NODES) :])
        self._add_producers(link, places[: len(NODES)])
        for number, program in enumerate(self.programs.values()):
            self._arm(program, shim, seed + number)

    def start(self) -> None:
        for program in self.programs.values():
            self.start_program(program)

    def consumer(self, name: str) -> Consumer:
        agent = self.programs[f"consumer-{name}"].agent
        assert isinstance(agent, Consumer)
        return agent

    # what faults do

    def start_program(self, program: Program) -> None:
        """Starts it unless another fault keeps it down."""
        if program.down_for or program.agent.alive:
            return
        program.disturbed_since_start = bool(program.disturbed_for)
        program.frozen_for.clear()
        program.ending = False
        program.started_at = time.monotonic()
        program.agent.start()
        self.look(program)

    def kill(self, program: Program) -> bool:
        if not program.agent.alive:
            return False
        program.agent.kill9()
        program.ending = False
        self.look(program)
        return True

    def freeze(self, program: Program, fault_id: int) -> bool:
        if not program.agent.alive:
            return False
        program.frozen_for.add(fault_id)
        with contextlib.suppress(ProcessLookupError):  # a relay that has just ended
            program.agent.freeze()
        self.look(program)
        return True

    def thaw(self, program: Program, fault_id: int) -> None:
        program.frozen_for.discard(fault_id)
        if program.agent.alive and not program.frozen_for:
            with contextlib.suppress(ProcessLookupError):
                program.agent.thaw()
        self.look(program)

    def ask_to_end(self, program: Program) -> bool:
        if not program.agent.alive:
            return False
        program.ending = True
        program.agent.ask_to_end()
        self.look(program)
        return True

    def wait_end(self, program: Program) -> None:
        """After it was asked to: it has to end, and well."""
        program.frozen_for.clear()
        if program.agent.alive:
            program.agent.thaw()
        code = program.agent.wait_exit()
        program.ending = False
        self.look(program)
        self._judge(program, code)

    def disturb(self, program: Program, fault_id: int, on: bool) -> None:
        if on:
            program.disturbed_for.add(fault_id)
            program.disturbed_since_start = True
        else:
            program.disturbed_for.discard(fault_id)
        self.look(program)

    def kill_relay(self, program: Program) -> bool:
        if not program.agent.alive or program.frozen_for:
            return False
        for pid in (children := program.agent.children()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(children)

    # what is known

    def tend(self) -> None:
        """Who ended by itself and may do so is started again when its disk is well; for others that is a failure."""
        for program in self.programs.values():
            if program.ending and not program.agent.alive:
                self.wait_end(program)
            if not program.agent.has_died:
                continue
            self.ended_by_themselves += 1
            code = program.agent.wait_exit()
            self.look(program)
            self._judge(program, code)
        for program in self.programs.values():
            if not program.agent.alive and not program.down_for and not program.disturbed_for:
                self.start_program(program)

    def look(self, program: Program) -> None:
        """Notes from when to when a producer was down, and could see its files."""
        if program.kind != "producer":
            return
        now = time.monotonic()
        alive = program.agent.alive
        _turn(self.down[program.node], not alive, now)
        seeing = alive and not program.ending and not program.frozen_for and not program.disturbed_for
        _turn(self.in_sight[program.node], seeing, now)

    def _judge(self, program: Program, code: int) -> None:
        excused = program.disturbed_since_start and code in (1, 2)
        # It could not ask for the signal to wait before it ran.
        excused = excused or (code == -signal.SIGTERM and time.monotonic() - program.started_at < _START_SECONDS)
        if code not in _MAY_END_WITH[program.kind] and not excused:
            raise TortureFailure(f"{program.agent.name} ended with {code}\n{program.agent.report()}")

    # the beginning

    def _add_consumers(self, link: Link, places: list[Place]) -> None:
        for seat, place, name in zip(link.consumers, places, CONSUMERS):
            disk = self._mount(f"consumer-{name}")
            consumer = self.lab.consumer(seat, "--sync", SYNC_SECONDS, "--format", "jsonl", name=name, mirror=True,
                                         merged=True, start=False)
            self._enter(consumer, place, disk)

    def _add_producers(self, link: Link, places: list[Place]) -> None:
        for seat, place, node in zip(link.producers, places, NODES):
            disk = self._mount(f"producer-{node}")
            producer = self.lab.producer(seat, node=node, globs=self.world.globs(node), start=False)
            self._enter(producer, place, disk)

    def _enter(self, agent: Agent, place: Place, disk: Path) -> None:
        faults = self.lab.root / "faults"
        faults.mkdir(exist_ok=True)
        self.programs[agent.name] = Program(agent, place, faults / f"{agent.name}.clock", disk)

    def _mount(self, name: str) -> Path:
        folder = self.lab.root / name
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "fantail-torture", folder]
        if subprocess.run(mount, capture_output=True).returncode == 0:
            self.lab.cleanup.callback(subprocess.run, ["umount", folder], check=True)
        return folder

    def _arm(self, program: Program, shim: Path, seed: int) -> None:
        """Puts the seams for failing calls and for another time of day under a program."""
        program.calls = FailingCalls(program.agent, shim, program.clock.with_suffix(".control"), seed, (FAKETIME,))
        program.clock.write_text("+0")
        program.agent.set_environment(
            {
                "FAKETIME_TIMESTAMP_FILE": str(program.clock),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_DISABLE_SHM": "1",
                "NO_FAKE_STAT": "1",
            }
        )


def make_lab(bin_dir: Path, seed: int) -> Lab:
    return Lab(bin_dir, PortPool(), seed)


def make_hosts(lab: Lab) -> tuple[Netlab | None, list[Place], str]:
    """The network of the run, its hosts, and why there is none."""
    netlab = Netlab()
    if netlab.reason_to_skip:
        return None, [], netlab.reason_to_skip
    lab.cleanup.callback(netlab.down)
    return netlab, netlab.up(len(NODES) + len(CONSUMERS)), ""


def _turn(intervals: list[Interval], on: bool, now: float) -> None:
    is_on = bool(intervals) and intervals[-1].end is None
    if on and not is_on:
        intervals.append(Interval(now))
    elif is_on and not on:
        intervals[-1].end = now
