"""fantail-state over multicast: changes are broadcast by epgm, requests and repair stay on tcp."""

from __future__ import annotations

import pytest

from fantail_lab import LOOPBACK, Lab, Place
from fantail_netlab import Netlab
from fantail_statelab import OK, Server, StateLab, assert_no_holes, replayed, states  # noqa: F401

pytestmark = pytest.mark.epgm


def epgm_server(states: StateLab, lab: Lab, place: Place = LOOPBACK, *flags: str) -> Server:
    return states.server(*lab.link("epgm", [place], [place]).producers[0].flags, *flags, place=place)


def test_each_change_reaches_each_watcher(states: StateLab, lab: Lab) -> None:
    """Of which one comes late."""
    last = 300
    epgm_server(states, lab)
    watchers = [states.watch("--from", "beginning") for _ in range(3)]
    client = states.client()
    for value in range(1, last // 2 + 1):
        client.call("set", key="k", value=[value, "x" * 500])
    watchers.append(states.watch("--from", "beginning"))
    for value in range(last // 2 + 1, last + 1):
        client.call("set", key="k", value=[value, "x" * 500])

    for watcher in watchers:
        events = states.wait_events(watcher, last)
        assert_no_holes([event["revision"] for event in events], 1, last)
        assert [event["after"][0] for event in events] == list(range(1, last + 1))


def test_the_server_says_how_it_broadcasts(states: StateLab, lab: Lab) -> None:
    server = epgm_server(states, lab)
    info = states.done("info")
    group, port = (server.flags[server.flags.index(flag) + 1] for flag in ("--group", "--port"))
    assert (info["transport"], info["group"], str(info["port"])) == ("epgm", group, port)


def test_conditions_expiry_and_live(states: StateLab, lab: Lab) -> None:
    epgm_server(states, lab)
    below = states.watch("--if", "/price < 40", "--from", "beginning", "--count", 1)
    everything = states.watch("--from", "beginning")
    for price in (50, 45, 39, 60):
        states.set("price", price)
    assert below.wait_exit() == OK
    assert below.events()[0]["after"] == 39
    states.set("short", 1, "--ttl", "0.5")
    event = states.wait_events(everything, 6)[5]
    assert (event["kind"], event["key"]) == ("expire", "short")


@pytest.mark.slow
def test_a_killed_server_and_a_killed_relay(states: StateLab, lab: Lab) -> None:
    """A watcher goes on where it was, after the server, its own relay and the server's have died."""
    server = epgm_server(states, lab)
    watcher = states.watch("--from", "beginning")
    client = states.client()
    value = 0
    for disturb in (server.restart, watcher.kill9_children, server.kill9_children, server.restart):
        for _ in range(50):
            value += 1
            client.call("set", key="k", value=value)
        states.wait_events(watcher, value - 25)
        disturb()
    client = states.client()
    for _ in range(50):
        value += 1
        client.call("set", key="k", value=value)
    events = states.wait_events(watcher, value)
    assert_no_holes([event["revision"] for event in events], 1, value)
    assert [event["after"] for event in events] == list(range(1, value + 1))


@pytest.mark.slow
@pytest.mark.netns
@pytest.mark.parametrize("compact_at", ("256M", "64K"), ids=("one journal", "many journals"))
def test_a_fifth_of_the_packets_lost_no_change_is(states: StateLab, lab: Lab, netlab: Netlab, compact_at: str) -> None:
    """Every revision once and in order, on the lossy host and on the other; changes come while packets are lost."""
    last = 400
    home, lossy, well = netlab.up(3)
    server = epgm_server(states, lab, home, "--compact-at", compact_at)
    watchers = [
        states.watch("--from", "beginning", "--interface", place.interface, place=place) for place in (lossy, well)
    ]
    first = states.other_client("set", {"key": "begin", "value": 1}, place=home)
    for watcher in watchers:
        states.wait_events(watcher, 1)
    netlab.lose(lossy, 20)

    # In steps: nobody is further behind than two journals are long.
    clients = [first]
    made = 1
    while made < last:
        clients.append(states.other_client("increment", {"key": "n"}, count=100, place=home))
        made += 100
        for watcher in watchers:
            states.wait_events(watcher, made, deadline=60)

    for watcher in watchers:
        events = watcher.events()
        assert_no_holes([event["revision"] for event in events], 1, made)
        assert replayed(events) == {"begin": 1, "n": made - 1}
    assert server.alive
    if compact_at == "64K":
        assert server.compactions() >= 1
