"""A full disk under the consumer: it says so, waits, and goes on without loss when there is space again."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from fantail_lab import Consumer, Lab

pytestmark = pytest.mark.slow

DISK_BYTES = 40 << 20
FREE_BYTES = 8 << 20
LINES = 80_000  # 16 MB


class SmallDisk:
    """A file system in memory, of which most is taken by a file that can be removed."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "fantail-test", folder], capture_output=True, text=True
        )
        if mounted.returncode != 0:
            pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
        lab.cleanup.callback(subprocess.run, ["umount", folder], check=True)
        self._folder = folder
        self._ballast = folder / "ballast"
        with self._ballast.open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, DISK_BYTES - FREE_BYTES)

    def is_full(self) -> bool:
        """Nearly: what is left is too little for the next piece."""
        status = os.statvfs(self._folder)
        return status.f_bavail * status.f_frsize < 512 << 10

    def fill(self) -> None:
        """What is left, too: not a byte can be written."""
        with (self._folder / "more ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while ballast.write(bytes(4096)):
                pass

    def make_space(self) -> None:
        self._ballast.unlink()


def says_that_the_disk_is_full(consumer: Consumer) -> bool:
    return "no space" in consumer.stderr().lower()


@pytest.mark.parametrize("sink", ("mirror", "merged"))
@pytest.mark.parametrize("on_it", ("output", "output and state"))
def test_a_full_disk_delays_but_loses_nothing(lab: Lab, sink: str, on_it: str) -> None:
    lab.source().append_lines(LINES)
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=sink == "mirror", merged=sink == "merged", start=False)
    disk = SmallDisk(lab, consumer.folder / "out" if on_it == "output" else consumer.folder)
    consumer.start()
    lab.producer(link.producers[0])
    lab.wait_until(disk.is_full, "the disk is full")
    lab.wait_until(lambda: says_that_the_disk_is_full(consumer), "the consumer says so")

    disk.make_space()

    (lab.wait_mirrored if sink == "mirror" else lab.wait_merged)(consumer)
    assert consumer.terminate() == 0
