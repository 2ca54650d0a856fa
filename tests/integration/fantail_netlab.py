"""A small network of hosts (network namespaces) that a test may make lossy or cut, by way of scripts/netlab."""

from __future__ import annotations

import os
import random
import string
import subprocess
from functools import cached_property
from pathlib import Path

from fantail_lab import Argument, Place

_SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "netlab"


def _prefix() -> str:
    """Of this test process only: namespaces are named <prefix><host number>, the prefix has at most 8 characters."""
    return "ft" + "".join(random.SystemRandom().choices(string.ascii_lowercase, k=5)) + "x"


class Netlab:
    """Hosts 1..N with multicast between them; each has one interface, eth0."""

    def __init__(self) -> None:
        self._prefix = _prefix()
        self._environment = os.environ | {"NETLAB_PREFIX": self._prefix}

    @cached_property
    def reason_to_skip(self) -> str:
        """A sentence when networks cannot be made here, else nothing."""
        try:
            checked = subprocess.run([_SCRIPT, "check"], capture_output=True, text=True, timeout=30)
        except OSError as error:
            return f"scripts/netlab cannot be run: {error}"
        return "" if checked.returncode == 0 else checked.stderr.strip() or "scripts/netlab check fails"

    def up(self, hosts: int) -> list[Place]:
        """Makes the hosts; replaces an earlier network of this test process."""
        self._do("up", hosts)
        run = ("env", f"NETLAB_PREFIX={self._prefix}", str(_SCRIPT), "exec")
        return [Place(self._do("ip", host).strip(), "eth0", (*run, str(host))) for host in range(1, hosts + 1)]

    def down(self) -> None:
        self._do("down")

    def lose(self, host: Place, percent: float, protocol: str = "all") -> None:
        """Drops that share of the packets to a host; 0 ends it."""
        self._do("loss", _number(host), percent, protocol)

    def cut(self, host: Place) -> None:
        """Silently drops everything to and from a host."""
        self._do("partition", _number(host))

    def heal(self, host: Place) -> None:
        self._do("heal", _number(host))

    def _do(self, command: str, *arguments: Argument | float) -> str:
        line = [str(_SCRIPT), command, *map(str, arguments)]
        done = subprocess.run(line, env=self._environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{' '.join(line)} failed: {done.stderr.strip()}"
        return done.stdout


def _number(host: Place) -> str:
    return host.prefix[-1]
