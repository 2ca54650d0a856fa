"""A program that is stopped (SIGSTOP) for some seconds and goes on: it lives, and everything arrives."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from fantail_lab import Lab, pace
from fantail_sources import Source

pytestmark = pytest.mark.slow

FILES = 5
STOPPED_SECONDS = 8  # longer than the other side waits for a sign of life


@contextlib.contextmanager
def trickle(sources: Sequence[Source]) -> Iterator[None]:
    """A line each 10 ms to the next of the sources, so short that a socket's buffers hold very many messages."""
    stopping = threading.Event()

    def write() -> None:
        for number in count():
            if stopping.wait(0.01):
                return
            sources[number % len(sources)].append(b"%d\n" % number)

    with ThreadPoolExecutor(max_workers=1) as pool:
        writing = pool.submit(write)
        try:
            yield
        finally:
            stopping.set()
        writing.result()  # raises what went wrong in the thread


@pytest.mark.parametrize("who", ("producer", "consumer"))
@pytest.mark.parametrize("kind", ("tcp", "tcp-bind"))
def test_a_stopped_program_goes_on_under_a_trickle_of_small_messages(lab: Lab, kind: str, who: str) -> None:
    sources = [lab.source(f"{number}.log") for number in range(FILES)]
    [producer], [consumer] = lab.party(lab.link(kind))
    stopped = producer if who == "producer" else consumer

    with trickle(sources):
        lab.time_until_flow(consumer, *sources)
        stopped.freeze()
        pace(STOPPED_SECONDS)
        stopped.thaw()
        lab.time_until_flow(consumer, *sources)

    lab.wait_mirrored(consumer)
    lab.wait_merged(consumer)
    assert producer.terminate() == 0
    assert consumer.terminate() == 0
