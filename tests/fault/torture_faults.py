"""The faults of a torture run: each begins, and ends again."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable

from fantail_netlab import Netlab
from torture_cluster import Cluster, Program
from torture_plan import Step

# What fails together, as it does on real disks.
_IO_ERRORS = (
    {"open": errno.EMFILE},
    {"write": errno.ENOSPC},
    {"write": errno.EIO},
    {"sync": errno.EIO},
    {"read": errno.EIO},
    {"rename": errno.EIO},
    {"open": errno.EIO, "read": errno.EIO, "write": errno.EIO, "sync": errno.EIO, "rename": errno.EIO},
    {"open": errno.ENOSPC, "write": errno.ENOSPC, "rename": errno.ENOSPC},
)
_PER_MILLION = (10_000, 100_000, 500_000, 1_000_000)
_LOSS_PERCENT = (0.5, 2, 5, 20)
_CLOCK_SECONDS = (-86_400, -3600, -61, -2, 2, 61, 3600, 86_400, 40 * 86_400)


class Faults:
    """Begins and ends what the steps say. Of one kind and program several may overlap: it is over with the last one."""

    def __init__(self, cluster: Cluster, netlab: Netlab | None) -> None:
        self._cluster = cluster
        self._netlab = netlab
        self._active: dict[tuple[str, str], set[int]] = {}

    def do(self, step: Step) -> str:
        """In words, what was done."""
        program = self._cluster.programs[step.target]
        key = (step.fault, step.target)
        active = self._active.setdefault(key, set())
        if step.action == "begin":
            active.add(step.fault_id)
        else:
            active.discard(step.fault_id)
        change: Callable[[Program, Step, bool], str | None] = getattr(self, "_" + step.fault.replace("-", "_"))
        if step.action == "end" and active:
            return "another one goes on"
        said = change(program, step, step.action == "begin")
        return said or f"{step.action} {step.fault} of {step.target}"

    # each kind

    def _kill(self, program: Program, step: Step, on: bool) -> str | None:
        if on:
            program.down_for.add(step.fault_id)
            return None if self._cluster.kill(program) else "it does not run"
        program.down_for.clear()
        self._cluster.start_program(program)
        return None

    def _terminate(self, program: Program, step: Step, on: bool) -> str | None:
        if on:
            return None if self._cluster.ask_to_end(program) else "it does not run"
        if program.ending:
            self._cluster.wait_end(program)
        self._cluster.start_program(program)
        return None

    def _kill_relay(self, program: Program, step: Step, on: bool) -> str | None:
        return None if on and self._cluster.kill_relay(program) else "nothing"

    def _stop(self, program: Program, step: Step, on: bool) -> str | None:
        if on:
            return None if self._cluster.freeze(program, step.fault_id) else "it does not run"
        for fault_id in list(program.frozen_for) or [step.fault_id]:
            self._cluster.thaw(program, fault_id)
        return None

    def _disk_full(self, program: Program, step: Step, on: bool) -> str | None:
        if not os.path.ismount(program.disk):
            return "nothing: no file system can be mounted here"
        ballast = program.disk / "ballast"
        self._cluster.disturb(program, _id_of(step), on)
        if on:
            with ballast.open("ab") as file:
                status = os.statvfs(program.disk)
                free = status.f_bavail * status.f_frsize
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), file.tell(), max(free, 1))
        else:
            ballast.unlink(missing_ok=True)
        return None

    def _io_errors(self, program: Program, step: Step, on: bool) -> str | None:
        which = _IO_ERRORS[step.pick % len(_IO_ERRORS)] if on else {}
        often = _PER_MILLION[step.pick // 16 % len(_PER_MILLION)]
        self._cluster.disturb(program, _id_of(step), on)
        assert program.calls is not None
        program.calls.fail(which, often)
        names = ", ".join(f"{call}: {errno.errorcode[number]}" for call, number in which.items())
        return f"io-errors of {step.target}: {names}, {often / 10_000:g} %" if on else None

    def _loss(self, program: Program, step: Step, on: bool) -> str | None:
        if self._netlab is None:
            return "nothing: there is no network"
        percent = _LOSS_PERCENT[step.pick % len(_LOSS_PERCENT)] if on else 0
        self._netlab.lose(program.place, percent)
        return f"{percent} % of the packets to {step.target} are lost"

    def _partition(self, program: Program, step: Step, on: bool) -> str | None:
        if self._netlab is None:
            return "nothing: there is no network"
        (self._netlab.cut if on else self._netlab.heal)(program.place)
        return None

    def _clock(self, program: Program, step: Step, on: bool) -> str | None:
        seconds = _CLOCK_SECONDS[step.pick % len(_CLOCK_SECONDS)] if on else 0
        program.clock.write_text(f"{seconds:+d}")
        return f"the clock of {step.target} is {seconds:+d} s off"


def _id_of(step: Step) -> int:
    """Of all disk faults of a program."""
    return step.fault_id * 2 + (step.fault == "io-errors")
