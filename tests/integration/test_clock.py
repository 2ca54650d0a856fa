"""The time of day is set forward and back by a day: nothing waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fantail_lab import Agent, Lab, pace
from fantail_sources import LogWriter

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
DAY = 86_400


class TimeOfDay:
    """Of one program; its monotonic clock stays what it is."""

    def __init__(self, agent: Agent) -> None:
        if not FAKETIME.exists():
            pytest.skip("libfaketime is not installed")
        self._file = agent.folder.with_name(f"{agent.name}.clock")
        self.set_off(0)
        agent.set_environment(
            {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(self._file),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_DISABLE_SHM": "1",
                "NO_FAKE_STAT": "1",
            }
        )

    def set_off(self, seconds: int) -> None:
        self._file.write_text(f"{seconds:+d}")


@pytest.mark.parametrize("who", ("producer", "consumer"))
@pytest.mark.parametrize("kind", ("tcp", pytest.param("epgm", marks=pytest.mark.epgm)))
def test_a_clock_that_is_set_back_stops_nothing(lab: Lab, kind: str, who: str) -> None:
    source = lab.source()
    link = lab.link(kind)
    consumer = lab.consumer(link.consumers[0], mirror=True, merged=True, start=False)
    producer = lab.producer(link.producers[0], start=False)
    clock = TimeOfDay(producer if who == "producer" else consumer)
    consumer.start()
    producer.start()

    with LogWriter(source, bytes_per_second=5_000_000):
        lab.wait_flow(consumer, source)
        for seconds in (DAY, 0, -DAY, 0):
            clock.set_off(seconds)
            pace(1)
            lab.wait_flow(consumer, source)
        # Who is new hears of a producer by its broadcast alone, on epgm.
        consumer.kill9()
        consumer.start()
        lab.wait_flow(consumer, source)

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)
