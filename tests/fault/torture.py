"""scripts/torture: files are written, renamed, cut and deleted while everything fails; at the end it is proven what arrived.

Everything random comes from the seed. A round is twelve seconds of disturbance; then all faults end, and everything that is
due has to be in the outputs of both consumers. A failure leaves the folder of the run and its log, which --replay takes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(_REPOSITORY / "tests" / "integration"))

from fantail_faults import shim_of  # noqa: E402
from fantail_lab import Lab  # noqa: E402
from torture_cluster import FAKETIME, Cluster, TortureFailure, make_hosts, make_lab  # noqa: E402
from torture_faults import Faults  # noqa: E402
from torture_plan import CONSUMERS, FAULT_NAMES, Step, plan, without  # noqa: E402
from torture_proof import Proof  # noqa: E402
from torture_report import Report, Run, read_log  # noqa: E402
from torture_world import World  # noqa: E402

CHECK_SECONDS = 90.0
"""So long a check waits for what is due. It says when to give up, and not how fast the programs have to be."""
_POLL_SECONDS = 0.25
_SHOWN = 12  # complaints


class Torture:
    """One run."""

    def __init__(self, run: Run, steps: list[Step], report: Report, lab: Lab, bin_dir: Path) -> None:
        self._steps = steps
        self._report = report
        self._world = World(lab.root / "world")
        netlab, hosts, reason = make_hosts(lab)
        if reason:
            report.note(f"no loss and no partition: {reason}")
        shim = shim_of(bin_dir)
        for needed in (shim, FAKETIME):
            if not needed.exists():
                raise SystemExit(f"torture: {needed} is missing; run scripts/setup and scripts/build release")
        self._cluster = Cluster(lab, self._world, run.transport, hosts, shim, run.seed)
        self._faults = Faults(self._cluster, netlab)
        self._proofs = [
            Proof(self._cluster.consumer(name), self._world, self._cluster, run.hold_time) for name in CONSUMERS
        ]

    def run(self) -> None:
        self._cluster.start()
        open_faults: list[Step] = []
        begin = time.monotonic()
        for step in self._steps:
            if step.action == "check":
                # A log that lines were taken from may leave a fault open.
                for fault in open_faults:
                    self._faults.do(Step(**(fault.to_record() | {"action": "end"})))
                open_faults.clear()
                self._report.step(step, self._check(f"round {step.round}"))
                begin = time.monotonic()
                continue
            time.sleep(max(0.0, begin + step.at - time.monotonic()))
            self._report.step(step, self._do(step))
            if step.action == "begin":
                open_faults.append(step)
            elif step.action == "end":
                open_faults = [f for f in open_faults if (f.fault, f.fault_id) != (step.fault, step.fault_id)]
            self._cluster.tend()
        self._check("the end")
        self._end()

    def close(self) -> None:
        self._world.close()

    def _do(self, step: Step) -> str:
        return self._faults.do(step) if step.fault else self._world.do(step)

    def _check(self, when: str) -> str:
        """Waits until all that is due is there."""
        self._world.finish_lines()
        begin = time.monotonic()
        while missing := [text for proof in self._proofs for text in proof.missing()]:
            self._cluster.tend()
            if time.monotonic() - begin > CHECK_SECONDS:
                raise TortureFailure(f"not there {CHECK_SECONDS:g} s after everything was well:\n" + _some(missing))
            time.sleep(_POLL_SECONDS)
        for proof in self._proofs:
            proof.settle()
        words = (
            f"{when}: all there after {time.monotonic() - begin:.1f} s: {len(self._world.lives)} lives, "
            f"{self._world.bytes_written} bytes, {self._proofs[0].count()} streams, "
            f"lost with reason: {', '.join(str(proof.lost_bytes()) for proof in self._proofs)}, "
            f"ended by themselves: {self._cluster.ended_by_themselves}"
        )
        self._report.note(words)
        return words

    def _end(self) -> None:
        """Everything ends as asked, and all of it is looked at once more from the beginning."""
        programs = list(self._cluster.programs.values())
        for program in sorted(programs, key=lambda p: p.kind, reverse=True):  # producers first: they wait for commits
            self._cluster.ask_to_end(program)
            self._cluster.wait_end(program)
        for proof in self._proofs:
            proof.whole()
            if missing := proof.missing():
                raise TortureFailure("missing when everything has ended:\n" + _some(missing))
        self._report.note("proven: every byte that is due is there once, or is a loss with a true reason")


def _some(complaints: list[str]) -> str:
    more = [f"... and {len(complaints) - _SHOWN} more"] if len(complaints) > _SHOWN else []
    return "\n".join("  " + text for text in complaints[:_SHOWN] + more)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__.partition("\n")[2].strip())
    parser.add_argument("--minutes", type=float, default=3, help="of disturbance; waiting for what is due comes on top")
    parser.add_argument("--seed", type=int, help="of everything random; without it one is chosen and told")
    parser.add_argument("--transport", choices=("tcp", "epgm"), default="tcp")
    parser.add_argument("--hold-time", type=float, default=6, metavar="S",
                        help="bytes that were there so long, in sight of a running producer, must arrive or be told as lost")
    parser.add_argument("--without", default="", metavar="FAULT,...", help=f"leaves faults out: {', '.join(FAULT_NAMES)}")
    parser.add_argument("--replay", type=Path, metavar="LOG", help="the steps of a log, with its seed and transport")
    parser.add_argument("--log", type=Path, metavar="LOG", help="default: torture-SEED-TRANSPORT.log in this folder")
    parser.add_argument("--bin-dir", type=Path, help="of the programs; default: $FANTAIL_BIN_DIR, build/release/bin")
    parser.add_argument("--keep", action="store_true", help="keeps the folder of the run, as a failure does")
    arguments = parser.parse_args()
    unknown = set(filter(None, arguments.without.split(","))) - set(FAULT_NAMES)
    if unknown:
        parser.error(f"--without {','.join(sorted(unknown))}: there are {', '.join(FAULT_NAMES)}")
    return arguments


def main() -> int:
    arguments = _arguments()
    if arguments.replay:
        run, steps = read_log(arguments.replay)
    else:
        seed = arguments.seed if arguments.seed is not None else int.from_bytes(os.urandom(3), "big")
        left_out = tuple(sorted(filter(None, arguments.without.split(","))))
        run = Run(seed, arguments.minutes, arguments.transport, left_out, arguments.hold_time)
        steps = without(plan(seed, arguments.minutes), frozenset(left_out))
    report = Report(arguments.log or Path(f"torture-{run.seed}-{run.transport}.log"), run)
    bin_dir = arguments.bin_dir or Path(os.environ.get("FANTAIL_BIN_DIR", _REPOSITORY / "build" / "release" / "bin"))
    report.note(f"seed {run.seed}, {run.minutes:g} minutes on {run.transport}, {len(steps)} steps, log {report.path}")
    lab = make_lab(bin_dir.resolve(), run.seed)
    torture = None
    failed = True
    try:
        torture = Torture(run, steps, report, lab, bin_dir.resolve())
        torture.run()
        lab.assert_clean()
        failed = False
    except (TortureFailure, AssertionError) as failure:
        report.note(f"FAILED: {failure}")
        report.note(f"replay with: scripts/torture --replay {report.path}; kept: {_kept(lab)}")
    finally:
        if torture is not None:
            torture.close()
        if failed or arguments.keep:
            _keep(lab)
        with contextlib.suppress(FileNotFoundError):
            lab.close()
    return 1 if failed else 0


def _kept(lab: Lab) -> Path:
    return lab.root.with_name(lab.root.name + "-kept")


def _keep(lab: Lab) -> None:
    """A copy, because parts of it are on file systems that will be unmounted."""
    for agent in lab.agents:
        agent.end()
    shutil.copytree(lab.root, _kept(lab), symlinks=True, ignore=shutil.ignore_patterns("ballast", "admin"))  # a socket


if __name__ == "__main__":
    sys.exit(main())
