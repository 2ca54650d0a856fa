"""What a torture run does, as a pure function of its seed: operations on files and faults, each at its nominal moment.

A step names nothing that only a run can know. Where it needs one of several files it carries a number, and the world takes
`files[number % len(files)]`; the files there are depend on the steps before alone. So one seed is one sequence, whatever
the machine makes of its timing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass

NODES = ("alpha", "beta")
CONSUMERS = ("one", "two")

ROUND_SECONDS = 12.0
"""Nominal length of the disturbed part of a round; then everything is healed, and everything has to arrive."""

_PAUSE_SECONDS = 0.12  # between two operations on files, on average

# Operations on files, with their shares. See torture_world.py for what each of them does.
_OPERATIONS = {
    "append": 46,
    "burst": 4,
    "create": 5,
    "rotate": 6,
    "rename": 3,
    "copytruncate": 4,
    "rewrite": 5,
    "delete": 5,
    "recreate": 4,
    "replace": 4,
    "hard-link": 3,
    "symlink": 3,
    "move": 4,
    "move-out": 2,
    "touch": 2,
}


@dataclass(frozen=True)
class Fault:
    """One kind of disturbance: whom it may hit, for how long, how often beside the others."""

    name: str
    victims: tuple[str, ...]
    seconds: tuple[float, float]
    share: int


_PROGRAMS = tuple(f"producer-{n}" for n in NODES) + tuple(f"consumer-{n}" for n in CONSUMERS)

FAULTS = (
    Fault("kill", _PROGRAMS, (0.0, 3.0), 14),
    Fault("kill-relay", _PROGRAMS, (0.0, 0.0), 2),
    Fault("stop", _PROGRAMS, (0.3, 6.0), 4),
    Fault("terminate", _PROGRAMS, (0.0, 2.0), 2),
    Fault("disk-full", _PROGRAMS, (1.0, 5.0), 2),
    Fault("io-errors", _PROGRAMS, (1.0, 5.0), 3),
    Fault("loss", _PROGRAMS, (1.0, 6.0), 2),
    Fault("partition", _PROGRAMS, (1.0, 7.0), 2),
    Fault("clock", _PROGRAMS, (0.5, 5.0), 2),
)
FAULT_NAMES = tuple(fault.name for fault in FAULTS)

_FAULTS_IN_A_ROUND = (2, 8)


@dataclass(frozen=True)
class Step:
    """Something to do. `at` is nominal, in seconds from the beginning of the round."""

    number: int
    round: int
    at: float
    action: str  # an operation on files, "begin" or "end" of a fault, or "check"
    target: str  # the node of an operation, the program of a fault
    fault: str = ""
    fault_id: int = 0  # the same at the beginning and the end of one fault
    pick: int = 0  # which file, which name, which strength: taken modulo what there is
    amount: int = 0  # bytes

    def to_record(self) -> dict[str, object]:
        return asdict(self)


def plan(seed: int, minutes: float) -> list[Step]:
    """All steps of a run. A longer run of the same seed begins with the steps of a shorter one."""
    rng = random.Random(seed)
    rounds = max(1, round(minutes * 60 / ROUND_SECONDS))
    steps: list[Step] = []
    for number in range(rounds):
        steps += _round(rng, number, len(steps))
    return steps


def without(steps: list[Step], faults: frozenset[str]) -> list[Step]:
    """The same steps, and none of those faults; all others stay what they are, so that a failure can be narrowed down."""
    return [step for step in steps if step.fault not in faults]


def _round(rng: random.Random, number: int, first: int) -> Iterator[Step]:
    drafts = [*_operations(rng), *_faults(rng)]
    drafts.sort(key=lambda draft: draft["at"])
    drafts.append({"at": ROUND_SECONDS, "action": "check", "target": ""})
    for offset, draft in enumerate(drafts):
        yield Step(number=first + offset, round=number, **draft)


def _operations(rng: random.Random) -> list[dict]:
    out = []
    at = 0.0
    while (at := at + rng.expovariate(1 / _PAUSE_SECONDS)) < ROUND_SECONDS:
        [action] = rng.choices(list(_OPERATIONS), _OPERATIONS.values())
        size = rng.choice((1, 7, 63, 64, 65, 4095, 4096, 4097, rng.randrange(1, 200), rng.randrange(1, 50_000)))
        amount = rng.randrange(500_000, 3_000_000) if action == "burst" else size
        target = rng.choice(NODES)
        out.append({"at": at, "action": action, "target": target, "pick": rng.getrandbits(31), "amount": amount})
    return out


def _faults(rng: random.Random) -> list[dict]:
    out = []
    for fault_id in range(rng.randint(*_FAULTS_IN_A_ROUND)):
        [fault] = rng.choices(FAULTS, [fault.share for fault in FAULTS])
        begin = rng.uniform(0, ROUND_SECONDS * 0.8)
        end = min(begin + rng.uniform(*fault.seconds), ROUND_SECONDS)
        common = {
            "target": rng.choice(fault.victims),
            "fault": fault.name,
            "fault_id": fault_id,
            "pick": rng.getrandbits(31),
        }
        out.append({"at": begin, "action": "begin", **common})
        out.append({"at": end, "action": "end", **common})
    return out
