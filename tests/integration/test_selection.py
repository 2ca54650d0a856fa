"""Which files are taken, where each is begun, in which order they come, and how topics share the broadcast."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from fantail_lab import Agent, Consumer, Lab
from fantail_sources import LINE_BYTES, Source

HOUR = 3600
MB = 1_000_000
MIB = 1024 * 1024
ORDERS = ("oldest", "newest", "name")


def made_old(source: Source | Path, seconds: float = HOUR) -> None:
    """As if nobody had written to it for so long."""
    then = time.time() - seconds
    os.utime(source.path if isinstance(source, Source) else source, (then, then))


def started(lab: Lab, *flags: str, globs: Sequence[str | Path] = ()) -> tuple[Agent, Consumer]:
    """A producer whose broadcasts a consumer hears from the first one on, so that its merged file has their order."""
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], "--format", "jsonl", mirror=True, merged=True)
    return lab.producer(link.producers[0], *flags, globs=globs), consumer


def entries(consumer: Consumer) -> list[dict]:
    return [json.loads(line) for line in consumer.merged_lines()]


def in_order_of_appearance(consumer: Consumer) -> list[str]:
    """The names of files whose lines have come."""
    return list(dict.fromkeys(Path(entry["path"]).name for entry in entries(consumer)))


def wait_appeared(lab: Lab, consumer: Consumer, count: int) -> list[str]:
    lab.wait_until(
        lambda: len(in_order_of_appearance(consumer)) >= count,
        f"lines of {count} files have come",
        explain=lambda: str(in_order_of_appearance(consumer)),
    )
    return in_order_of_appearance(consumer)


def wait_equal(lab: Lab, consumer: Consumer, *sources: Source) -> None:
    """All that was ever written to these paths is in their mirrors."""

    def different() -> list[str]:
        mirrors = {source.path: consumer.mirrored(source) for source in sources}
        return [
            str(source.path)
            for source in sources
            if not mirrors[source.path].exists() or mirrors[source.path].read_bytes() != source.text()
        ]

    lab.wait_until(lambda: not different(), "they are mirrored", explain=lambda: f"differ: {different()}")


# --- order -------------------------------------------------------------------------------------------------------------


def shuffled_backlog(lab: Lab, count: int = 12) -> list[Source]:
    """Files whose ages, names and order of creation have nothing to do with each other; the oldest first."""
    names = [f"{letter}.log" for letter in "abcdefghijklmnopqrstuvwxyz"[:count]]
    sources = [lab.source(name) for name in lab.rng.sample(names, count)]
    for source in sources:
        source.append_lines(3)
    by_age = lab.rng.sample(sources, count)
    for age, source in enumerate(by_age):
        made_old(source, HOUR - age)
    return by_age


def names_of(sources: Iterable[Source]) -> list[str]:
    return [source.path.name for source in sources]


@pytest.mark.parametrize("order", ORDERS)
def test_a_backlog_comes_in_the_order_that_is_asked_for(lab: Lab, order: str) -> None:
    by_age = names_of(shuffled_backlog(lab))
    _, consumer = started(lab, "--order", order)
    expected = {"oldest": by_age, "newest": by_age[::-1], "name": sorted(by_age)}[order]
    assert wait_appeared(lab, consumer, len(by_age)) == expected


@pytest.mark.parametrize("order", ORDERS)
def test_files_of_equal_age_come_all_and_between_the_others(lab: Lab, order: str) -> None:
    sources = shuffled_backlog(lab)
    groups = [names_of(sources[i : i + 4]) for i in range(0, len(sources), 4)]
    for number, group in enumerate(groups):
        then = int(time.time()) - HOUR + number
        for name in group:
            os.utime(lab.files_of("alpha") / name, (then, then))
    _, consumer = started(lab, "--order", order)

    appeared = wait_appeared(lab, consumer, len(sources))
    if order == "name":
        assert appeared == sorted(names_of(sources))
    else:
        expected = groups if order == "oldest" else groups[::-1]
        assert [sorted(appeared[i : i + 4]) for i in range(0, len(appeared), 4)] == [sorted(group) for group in expected]


def test_files_that_are_found_together_later_come_in_that_order_too(lab: Lab) -> None:
    """A folder with a backlog that is moved to where it is looked for."""
    producer, consumer = started(lab, "--order", "oldest", globs=[f"{lab.files_of('alpha')}/**"])
    lab.wait_until(lambda: "no file matches yet" in producer.stderr(), "it has looked")
    prepared = lab.root / "prepared"
    prepared.mkdir()
    by_age = lab.rng.sample([f"{letter}.log" for letter in "abcdefgh"], 8)
    for age, name in enumerate(by_age):
        (prepared / name).write_text(f"one line of {name}\n")
        made_old(prepared / name, HOUR - age)
    prepared.rename(lab.files_of("alpha") / "arrived")
    assert wait_appeared(lab, consumer, len(by_age)) == by_age


@pytest.mark.parametrize("order", ORDERS)
def test_streams_of_an_earlier_run_that_grew_meanwhile_come_in_that_order_too(lab: Lab, order: str) -> None:
    sources = shuffled_backlog(lab)
    producer, consumer = started(lab, "--order", "name")
    wait_appeared(lab, consumer, len(sources))
    assert producer.terminate() == 0
    came = len(entries(consumer))
    by_age = lab.rng.sample(sources, len(sources))
    for age, source in enumerate(by_age):
        source.append_lines(1)
        made_old(source, HOUR / 2 - age)
    producer.flags[producer.flags.index("--order") + 1] = order
    producer.start()
    lab.wait_until(lambda: len(entries(consumer)) == came + len(sources), "all have come")
    ages = names_of(by_age)
    expected = {"oldest": ages, "newest": ages[::-1], "name": sorted(ages)}[order]
    assert [Path(entry["path"]).name for entry in entries(consumer)[came:]] == expected


# --- age ---------------------------------------------------------------------------------------------------------------


def test_an_old_file_is_left_alone_until_it_is_written_to_and_then_comes_from_its_first_byte(lab: Lab) -> None:
    old, young, later = (lab.source(name) for name in ("old.log", "young.log", "later.log"))
    old.append_lines(50)
    made_old(old)
    young.append_lines(50)
    producer, consumer = started(lab, "--ignore-older", str(HOUR / 2))
    wait_equal(lab, consumer, young)
    later.append_lines(1)
    wait_equal(lab, consumer, later)
    assert set(in_order_of_appearance(consumer)) == {"young.log", "later.log"}
    assert "old files are left alone" in producer.stderr()
    assert not consumer.mirrored(old).exists()

    old.append_lines(1)
    wait_equal(lab, consumer, old, young, later)


def test_an_old_file_that_is_moved_here_is_left_alone_too(lab: Lab) -> None:
    _, consumer = started(lab, "--ignore-older", str(HOUR / 2))
    first, last = lab.source("first.log"), lab.source("last.log")
    first.append_lines(1)
    wait_equal(lab, consumer, first)
    elsewhere = lab.root / "elsewhere"
    elsewhere.write_text("old lines\n")
    made_old(elsewhere)
    elsewhere.rename(lab.files_of("alpha") / "moved.log")
    last.append_lines(1)
    wait_equal(lab, consumer, last)
    assert "moved.log" not in in_order_of_appearance(consumer)

    with (lab.files_of("alpha") / "moved.log").open("a") as out:
        out.write("a new line\n")
    lab.wait_until(
        lambda: [e["line"] for e in entries(consumer) if e["path"].endswith("moved.log")] == ["old lines", "a new line"],
        "all of it comes when it is written to",
    )


def test_a_known_stream_goes_on_however_old_it_got_while_the_producer_was_down(lab: Lab) -> None:
    known, unknown = lab.source("known.log"), lab.source("unknown.log")
    known.append_lines(50)
    producer, consumer = started(lab, "--ignore-older", str(HOUR / 2))
    wait_equal(lab, consumer, known)
    assert producer.terminate() == 0
    known.append_lines(50)
    made_old(known)
    unknown.append_lines(50)
    made_old(unknown)

    producer.start()
    wait_equal(lab, consumer, known)
    assert producer.stderr().count("file found") == 1
    assert in_order_of_appearance(consumer) == ["known.log"]
    known.append_lines(1)
    unknown.append_lines(1)
    wait_equal(lab, consumer, known, unknown)


def test_a_file_that_is_begun_at_its_end_is_not_asked_for_its_age(lab: Lab) -> None:
    old = lab.source("old.log")
    before = old.append_lines(50)
    made_old(old)
    producer, consumer = started(lab, "--ignore-older", str(HOUR / 2), "--from", "end")
    lab.wait_until(lambda: "file found" in producer.stderr(), "it is known")
    new = old.append_lines(2)
    lab.wait_until(lambda: len(entries(consumer)) >= 2, "the new lines have come")
    assert [entry["line"] for entry in entries(consumer)] == new.decode().splitlines()
    assert entries(consumer)[0]["offset"] == len(before)


# --- where to begin ----------------------------------------------------------------------------------------------------


def test_each_pattern_has_its_own_beginning(lab: Lab) -> None:
    late, whole = lab.source("late/a.log"), lab.source("whole/a.log")
    late_before, whole_before = late.append_lines(50), whole.append_lines(50)
    files = lab.files_of("alpha")
    producer, consumer = started(
        lab, globs=["--from", "end", f"late={files}/late/*.log", "--from", "beginning", f"whole={files}/whole/*.log"]
    )
    lab.wait_until(lambda: producer.stderr().count("file found") == 2, "both are known")
    late_after, whole_after = late.append_lines(3), whole.append_lines(3)
    found_later = lab.source("late/b.log")
    later = found_later.append_lines(3)

    def lines(topic: str, name: str) -> list[str]:
        return [e["line"] for e in entries(consumer) if (e["topic"], Path(e["path"]).name) == (topic, name)]

    def all_came() -> bool:
        return (
            lines("late", "a.log") == late_after.decode().splitlines()
            and lines("late", "b.log") == later.decode().splitlines()
            and lines("whole", "a.log") == (whole_before + whole_after).decode().splitlines()
        )

    lab.wait_until(all_came, "each line that is wanted has come", explain=lambda: str(in_order_of_appearance(consumer)))

    # Not at a later start: a file that came meanwhile is begun at its beginning.
    assert producer.terminate() == 0
    while_down = lab.source("late/c.log")
    down = while_down.append_lines(3)
    late_after += late.append_lines(3)
    producer.start()
    lab.wait_until(lambda: all_came() and lines("late", "c.log") == down.decode().splitlines(), "all of it has come")
    mirror = consumer.mirrored(late).read_bytes()
    assert mirror == bytes(len(late_before)) + late_after


def test_the_first_start_counts_although_no_file_matched_then(lab: Lab) -> None:
    producer, consumer = started(lab, "--from", "end")
    lab.wait_until(lambda: "no file matches yet" in producer.stderr(), "it has looked")
    assert producer.terminate() == 0
    source = lab.source()
    source.append_lines(50)
    producer.start()
    wait_equal(lab, consumer, source)


# --- shares of the broadcast -------------------------------------------------------------------------------------------


def test_topics_at_a_limit_take_their_time_together(lab: Lab) -> None:
    """A lower bound, which no slow machine can break: what is sent per second is at most the limit."""
    limit, burst, message = 2 * MB, 0.2 * MB, 64 * 1024
    sources = [lab.source(f"{name}.log") for name in ("web", "db")]
    for source in sources:
        source.append_lines(2 * MB // LINE_BYTES)
    files = lab.files_of("alpha")
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True)
    begin = time.monotonic()
    lab.producer(
        link.producers[0],
        *("--compression", "none", "--chunk", str(message), "--limit", f"app={limit / MB}"),
        globs=[f"app/web={files}/web.log", f"app/db={files}/db.log"],
    )
    wait_equal(lab, consumer, *sources)
    assert time.monotonic() - begin >= (4 * MB - burst - message) / limit


def test_a_topic_at_its_limit_does_not_hold_up_another(lab: Lab) -> None:
    """The limited one would take minutes."""
    slow, live = lab.source("slow.log"), lab.source("live.log")
    slow.append_lines(60 * MB // LINE_BYTES)
    made_old(slow)
    live.append_lines(20 * MB // LINE_BYTES)
    files = lab.files_of("alpha")
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True)
    lab.producer(
        link.producers[0],
        *("--compression", "none", "--limit", "slow=0.5"),
        globs=[f"slow={files}/slow.log", f"live={files}/live.log"],
    )
    wait_equal(lab, consumer, live)
    lab.wait_until(lambda: consumer.mirrored(slow).stat().st_size > 0, "the other goes on, too")
    live.append_lines(10)
    wait_equal(lab, consumer, live)
    assert consumer.mirrored(slow).stat().st_size < slow.current.size / 2


def bytes_before_the_last_line(consumer: Consumer) -> dict[str, int]:
    """Of each file: how much had come of all together when its last line came."""
    out: dict[str, int] = {}
    came = 0
    for entry in entries(consumer):
        came += len(entry["line"]) + 1
        out[Path(entry["path"]).name] = came
    return out


def test_a_huge_file_does_not_starve_small_ones(lab: Lab) -> None:
    """Files take turns of 1 MiB, though the huge one is the oldest; a few more of it may be fetched meanwhile."""
    huge, small = lab.source("huge.log"), [lab.source(f"small-{i}.log") for i in range(10)]
    huge.append_lines(24 * MIB // LINE_BYTES)
    made_old(huge)
    for source in small:
        source.append_lines(100)
    _, consumer = started(lab, "--order", "oldest")
    wait_equal(lab, consumer, huge, *small)
    assert in_order_of_appearance(consumer)[0] == "huge.log"
    before = bytes_before_the_last_line(consumer)
    assert max(before[source.path.name] for source in small) < 8 * MIB


@pytest.mark.parametrize("fair", (True, False))
def test_topics_share_the_broadcast_however_many_files_one_has(lab: Lab, fair: bool) -> None:
    crowd, one = [lab.source(f"crowd-{i:02d}.log") for i in range(16)], lab.source("one.log")
    for source in (*crowd, one):
        source.append_lines(3 * MIB // 2 // LINE_BYTES)
    made_old(one, 60)
    files = lab.files_of("alpha")
    flags = ["--order", "newest", *(["--fair"] if fair else [])]
    _, consumer = started(lab, *flags, globs=[f"crowd={files}/crowd-*", f"one={files}/one.log"])
    wait_equal(lab, consumer, one, *crowd)
    before = bytes_before_the_last_line(consumer)["one.log"]
    if fair:
        assert consumer.terminate() == 0
        fetched = " bytes_fetched=0 " not in consumer.stderr()  # then a part of it may have come after others' bytes
        assert before < (12 if fetched else 6) * MIB
    else:
        assert before > 15 * MIB


# --- patterns ----------------------------------------------------------------------------------------------------------

TREE = (
    "a.log b.log c.txt .hidden.log a1.log a12.log ab.log x[1].log"
    " one/a.log one/b.txt one/deep/a.log one/deep/er/a.log two/a.log two/.secret/a.log .cache/a.log"
).split()

PATTERNS = {
    "braces": (["{a,b}.log"], [], "a.log b.log"),
    "braces within braces": (["{a{1,12},b}.log"], [], "a1.log a12.log b.log"),
    "braces around directories": (["{one,two}/a.log"], [], "one/a.log two/a.log"),
    "a class": (["a[0-9].log"], [], "a1.log"),
    "what is not in a class": (["a[!0-9].log"], [], "ab.log"),
    "a bracket in a class": (["x[[]1].log"], [], "x[1].log"),
    "a question mark": (["a?.log"], [], "a1.log ab.log"),
    "a star leaves out what is hidden": (["*.log"], [], "a.log b.log a1.log a12.log ab.log x[1].log"),
    "what is hidden, by its dot": ([".*/*.log", ".*.log"], [], ".cache/a.log .hidden.log"),
    "any depth in the middle": (["one/**/a.log"], [], "one/a.log one/deep/a.log one/deep/er/a.log"),
    "any depth at the end": (["one/**"], [], "one/a.log one/b.txt one/deep/a.log one/deep/er/a.log"),
    "a directory": (["two"], [], "two/a.log"),
    "one level": (["*/a.log"], [], "one/a.log two/a.log"),
    "two patterns for the same": (["one/*", "**/b.txt", "one/a.log"], [], "one/a.log one/b.txt"),
    "without a name at any depth": (["**/*.log"], ["a.log"], "b.log a1.log a12.log ab.log x[1].log"),
    "without a directory": (["one/**"], ["deep"], "one/a.log one/b.txt"),
    "without a path": (["{one,two}/a.log"], ["{}/two/*"], "one/a.log"),
    "without what braces say": (["*.log"], ["{{a,b}}*", "x*"], ""),
}


@pytest.mark.parametrize("case", PATTERNS)
def test_what_patterns_take(lab: Lab, case: str) -> None:
    patterns, excludes, expected = PATTERNS[case]
    files = lab.files_of("alpha")
    for name in TREE:
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_text(f"a line of {name}\n")
    without = [flag for text in excludes for flag in ("--exclude", text.format(files))]
    witness = lab.root / "witness"  # so that something comes where nothing is taken
    witness.write_text("the witness\n")
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True, merged=True)
    producer = lab.producer(link.producers[0], "--once", *without, globs=[*(files / p for p in patterns), witness])
    assert producer.wait_exit() == 0
    assert consumer.terminate() == 0
    wanted = [f"a line of {name}" for name in expected.split()] + ["the witness"]
    assert sorted(consumer.merged_lines()) == sorted(line.encode() for line in wanted)


def test_folders_that_appear_later_are_found_however_they_come(lab: Lab) -> None:
    files = lab.files_of("alpha")
    patterns = [files / "made/*/*.log", files / "moved/**/*.log", files / "linked/**/*.log", files / "deep/er/still/*.log"]
    producer, consumer = started(lab, globs=patterns)
    lab.wait_until(lambda: "no file matches yet" in producer.stderr(), "it has looked")

    made = lab.source("made/a/1.log")
    made.append_lines(1)
    wait_equal(lab, consumer, made)
    prepared = lab.root / "prepared"
    (prepared / "x/y").mkdir(parents=True)
    (prepared / "x/y/2.log").write_text("two\n")
    shutil.copytree(prepared, lab.root / "target")
    prepared.rename(files / "moved")
    deep = lab.source("deep/er/still/3.log")
    deep.append_lines(1)
    wait_equal(lab, consumer, made, deep)

    def came() -> set[str]:
        return {str(Path(e["path"]).relative_to(files)) for e in entries(consumer)}

    expected = {"made/a/1.log", "moved/x/y/2.log", "deep/er/still/3.log"}
    lab.wait_until(lambda: came() == expected, "all are found", explain=lambda: str(came()))
    (files / "linked").symlink_to(lab.root / "target")
    expected.add("linked/x/y/2.log")
    lab.wait_until(lambda: came() == expected, "what is behind a link is found", explain=lambda: str(came()))
    (lab.root / "target/later").mkdir()
    (lab.root / "target/later/4.log").write_text("four\n")
    expected.add("linked/later/4.log")
    lab.wait_until(lambda: came() == expected, "what comes behind the link is found", explain=lambda: str(came()))


def test_links_in_circles_end_and_each_file_comes_once(lab: Lab) -> None:
    source, below = lab.source("a.log"), lab.source("x/y/b.log")
    source.append_lines(5)
    below.append_lines(5)
    files = lab.files_of("alpha")
    (files / "x/y/up").symlink_to(files)
    (files / "x/self").symlink_to(".")
    (files / "nowhere").symlink_to(files / "gone")
    _, consumer = started(lab, globs=[f"{files}/**/*.log"])
    lab.wait_mirrored(consumer)
    source.append_lines(5)
    below.append_lines(5)
    lab.wait_mirrored(consumer)
    assert len(entries(consumer)) == 20


@pytest.mark.parametrize("link_first", (True, False))
def test_a_folder_that_two_patterns_reach_comes_for_both_by_its_names(lab: Lab, link_first: bool) -> None:
    """One takes some of its files through a link, the other one others under its own name. Neither waits for a rescan."""
    real = lab.files_of("alpha") / "real"
    (real / "below").mkdir(parents=True)
    links = lab.files_of("alpha") / "links"
    links.mkdir()
    (links / "here").symlink_to(real)

    def write(name: str) -> None:
        with (real / name).open("a") as out:
            out.write(f"a line of {name}\n")

    for name in ("a.log", "a.txt", "below/b.log", "below/b.txt"):
        write(name)
    patterns = [f"logs={links}/**/*.log", f"texts={real}/**/*.txt"]
    _, consumer = started(lab, globs=patterns if link_first else patterns[::-1])

    def came() -> list[tuple[str, str, str]]:
        return sorted((e["topic"], str(Path(e["path"]).relative_to(real.parent)), e["line"]) for e in entries(consumer))

    expected = []
    for turn in range(3):
        expected += [("logs", f"links/here/{name}", f"a line of {name}") for name in ("a.log", "below/b.log")]
        expected += [("texts", f"real/{name}", f"a line of {name}") for name in ("a.txt", "below/b.txt")]
        lab.wait_until(lambda: came() == sorted(expected), f"turn {turn}", explain=lambda: str(came()))
        for name in ("a.log", "a.txt", "below/b.log", "below/b.txt"):
            write(name)
    for name in ("c.log", "c.txt"):
        write(name)
    lab.wait_until(
        lambda: {("logs", "links/here/c.log"), ("texts", "real/c.txt")} <= {entry[:2] for entry in came()},
        "what comes later is found by the name that is taken",
        explain=lambda: str(came()),
    )


def test_a_link_to_a_folder_that_leads_to_another_one_is_followed(lab: Lab) -> None:
    """As deployments switch `current`: the old files are read to their end, the new ones begin."""
    files = lab.files_of("alpha")
    first, second = lab.source("v1/app.log"), lab.source("v2/app.log")
    current = files / "current"
    first.append_lines(10)
    current.symlink_to("v1")
    _, consumer = started(lab, globs=[f"{current}/*.log"])
    lab.wait_until(lambda: len(entries(consumer)) == 10, "the first is read")
    second.append_lines(10)
    (files / "next").symlink_to("v2")
    (files / "next").rename(current)
    first.append_lines(10)
    lab.wait_until(lambda: len(entries(consumer)) == 30, "both are read", explain=lambda: str(len(entries(consumer))))
    second.append_lines(10)
    lab.wait_mirrored(consumer)
    lines = [entry["line"] for entry in entries(consumer)]
    assert sorted(lines) == sorted((first.text() + second.text()).decode().splitlines())


def test_an_excluded_file_is_begun_when_it_gets_a_name_that_is_taken_and_goes_on_when_it_loses_it(lab: Lab) -> None:
    excluded, taken = lab.source("a.tmp.log"), lab.source("b.log")
    excluded.append_lines(10)
    taken.append_lines(10)
    files = lab.files_of("alpha")
    _, consumer = started(lab, "--exclude", "*.tmp.log", globs=[f"{files}/*.log"])
    wait_equal(lab, consumer, taken)
    assert in_order_of_appearance(consumer) == ["b.log"]

    (files / "a.tmp.log").rename(files / "a.log")
    (files / "b.log").rename(files / "b.tmp.log")
    excluded.append_lines(10)
    taken.append_lines(10)
    lab.wait_mirrored(consumer)
    assert sorted(in_order_of_appearance(consumer)) == ["a.log", "b.log"]
