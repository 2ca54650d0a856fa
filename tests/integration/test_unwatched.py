"""Directories of which no events tell are polled, and only those."""

from __future__ import annotations

import subprocess

import pytest

from fantail_lab import Lab, Place, Seat

WITH_TWO_WATCHES = ("unshare", "-Ur", "sh", "-c", 'echo 2 > /proc/sys/user/max_inotify_watches && exec "$@"', "sh")


def test_beyond_the_limit_of_watches_directories_are_polled_and_the_limit_is_named(lab: Lab) -> None:
    if subprocess.run([*WITH_TWO_WATCHES, "true"], capture_output=True).returncode != 0:
        pytest.skip("no user namespace with a limit of its own here")
    sources = [lab.source(f"d{n}/app.log") for n in range(6)]
    for source in sources:
        source.append_lines(10)
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True)
    seat = Seat(Place("127.0.0.1", "127.0.0.1", WITH_TWO_WATCHES), link.producers[0].flags)
    producer = lab.producer(seat, "--rescan", "3600", globs=[f"{lab.files_of('alpha')}/**/*.log"])
    lab.wait_mirrored(consumer)
    assert "fs.inotify.max_user_watches" in producer.stderr()

    for source in sources:
        source.append_lines(10)
    for n in range(6):
        lab.source(f"d{n}/later.log").append_lines(10)
    lab.source("d5/deeper/down.log").append_lines(10)

    lab.wait_mirrored(consumer)


def test_walking_many_files_over_and_over_leaves_time_to_send_them(lab: Lab) -> None:
    """A walk over files that are not sent yet takes about as long as the pause between two."""
    folder = lab.files_of("alpha")
    for directory in range(100):
        (folder / f"d{directory}").mkdir(parents=True)
        for number in range(200):
            (folder / f"d{directory}" / f"{number}.log").write_text(f"{directory} {number}\n")
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], merged=True)
    lab.producer(link.producers[0], "--poll", "--rescan", "0.1", globs=[f"{folder}/**"])
    lab.wait_until(lambda: consumer.merged.exists() and consumer.merged.read_bytes().count(b"\n") == 20_000, "all lines are there", 120)
