"""Makes calls on the files of a program fail, by way of tests/fault/fault_shim.cc, which is preloaded into it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from fantail_lab import Agent

CALLS = ("open", "read", "write", "sync", "rename")  # the order of `Call` in fault_shim.cc
_RULE = struct.Struct("=II")  # how many in a million, errno
_CONTROL_BYTES = 4096


def shim_of(bin_dir: Path) -> Path:
    return bin_dir / "tests" / "fault_shim.so"


class FailingCalls:
    """Of one program, in all that is below its folder: state and outputs. Nothing fails to begin with."""

    def __init__(self, agent: Agent, shim: Path, control: Path, seed: int = 1, preload: tuple[Path, ...] = ()) -> None:
        assert shim.exists(), f"{shim} is missing: scripts/build makes it"
        self._control = control
        control.parent.mkdir(parents=True, exist_ok=True)
        control.write_bytes(bytes(_CONTROL_BYTES))
        agent.set_environment(
            {
                "LD_PRELOAD": ":".join(map(str, (shim, *preload))),
                "FANTAIL_FAULT_CONTROL": str(control),
                "FANTAIL_FAULT_UNDER": str(agent.folder),
                "FANTAIL_FAULT_SEED": str(seed),
            }
        )

    def fail(self, errors: Mapping[str, int], per_million: int = 1_000_000) -> None:
        """From now on so many of these calls fail, each with its errno; all others succeed."""
        assert errors.keys() <= set(CALLS)
        rules = (_RULE.pack(per_million if call in errors else 0, errors.get(call, 0)) for call in CALLS)
        with self._control.open("r+b") as control:  # in place: it is mapped
            control.write(b"".join(rules))

    def heal(self) -> None:
        self.fail({})
