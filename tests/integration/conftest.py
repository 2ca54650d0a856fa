"""Fixtures of the integration tests, and what a failed test tells: the seed and the last words of every program."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fantail_lab import Lab, PortPool
from fantail_netlab import Netlab

_REPOSITORY = Path(__file__).resolve().parents[2]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--share", metavar="K/N", default="1/1", help="run only the K-th of N equal shares of the tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every N-th test: neighbours, which take about as long as each other, are spread over the shares."""
    share, shares = map(int, config.getoption("--share").split("/"))
    items[:] = items[share - 1 :: shares]


@pytest.fixture(scope="session")
def bin_dir() -> Path:
    folder = Path(os.environ.get("FANTAIL_BIN_DIR", _REPOSITORY / "build" / "release" / "bin")).resolve()
    for program in ("fantail-producer", "fantail-consumer"):
        assert (folder / program).exists(), f"{folder}/{program} is missing: build it, or set FANTAIL_BIN_DIR"
    return folder


@pytest.fixture(scope="session")
def ports() -> PortPool:
    return PortPool()


@pytest.fixture
def seed() -> int:
    """Of everything random in one test; FANTAIL_SEED replays it."""
    return int(os.environ.get("FANTAIL_SEED", random.SystemRandom().randrange(1, 1_000_000)))


@pytest.fixture
def lab(bin_dir: Path, ports: PortPool, seed: int) -> Iterator[Lab]:
    lab = Lab(bin_dir, ports, seed)
    try:
        yield lab
        lab.assert_clean()
    finally:
        lab.close()


@pytest.fixture(scope="session")
def networks() -> Netlab:
    return Netlab()


@pytest.fixture
def netlab(lab: Lab, networks: Netlab) -> Netlab:
    """Networks for this test; taken down after the programs in them ended."""
    if networks.reason_to_skip:
        pytest.skip(networks.reason_to_skip)
    lab.cleanup.callback(networks.down)
    return networks


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and lab is not None and report.when == "call":
        report.sections.append(("seed", f"replay with FANTAIL_SEED={lab.seed} pytest '{item.nodeid}'"))
        report.sections += [(agent.name, agent.report()) for agent in lab.agents]
