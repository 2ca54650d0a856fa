"""What consumers make of lines: encodings, line ends, long lines, records of many lines, filters; and never of mirrors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fantail_lab import LOOPBACK, Consumer, Lab, pace
from fantail_sources import Source

USAGE = 2

TEXT = "one\r\ngr\u00fc\u00dfe \u20ac \U0001f600\r\n\r\n\u0a0a\u0d0a\nlast\n"
LINES = ["one", "gr\u00fc\u00dfe \u20ac \U0001f600", "", "\u0a0a\u0d0a", "last"]

JAVA = [
    "12:00:00 INFO begins",
    "java.lang.IllegalStateException: no\n\tat shop.Shop.sell(Shop.java:21)\n\tSuppressed: java.io.IOException: closed\n"
    "\t\tat shop.Door.close(Door.java:7)\nCaused by: java.lang.NullPointerException\n\tat shop.Shop.find(Shop.java:4)\n"
    "\t... 2 more",
    "12:00:01 INFO goes on",
]
PYTHON = [
    "INFO:root:begins",
    'Traceback (most recent call last):\n  File "a.py", line 3, in <module>\n    f()\nKeyError: 1\n\n'
    "During handling of the above exception, another exception occurred:\n\n"
    'Traceback (most recent call last):\n  File "a.py", line 5, in <module>\n    g()\nshop.NotFound: x',
    "INFO:root:goes on",
]


def objects(text: bytes) -> list[dict[str, Any]]:
    """The objects of the complete lines in a jsonl output."""
    return [json.loads(line) for line in text.split(b"\n")[:-1]]


def texts_of(found: list[dict[str, Any]], source: Source) -> list[str]:
    return [entry["line"] for entry in found if entry["path"] == str(source.path)]


def records_of(consumer: Consumer, source: Source) -> list[str]:
    text = consumer.merged.read_bytes() if consumer.merged.exists() else b""
    return texts_of(objects(text), source)


def lines_consumer(lab: Lab, *flags: str) -> Consumer:
    """A producer, and a consumer with a mirror and records in jsonl."""
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], "--format", "jsonl", *flags, mirror=True, merged=True)
    lab.producer(link.producers[0])
    return consumer


@pytest.mark.parametrize("mark", ("", "\ufeff"), ids=("bare", "with a mark"))
@pytest.mark.parametrize("flag, codec", (("utf-16le", "utf-16-le"), ("utf-16be", "utf-16-be"), ("utf-8", "utf-8")))
def test_text_becomes_utf_8(lab: Lab, flag: str, codec: str, mark: str) -> None:
    source = lab.source()
    consumer = lines_consumer(lab, "--encoding", flag)

    for byte in (mark + TEXT).encode(codec)[:40]:  # characters come in halves
        source.append(bytes([byte]))
    source.append((mark + TEXT).encode(codec)[40:])

    lab.wait_until(lambda: records_of(consumer, source) == LINES, "the lines are there")
    lab.wait_mirrored(consumer)
    offsets = [entry["offset"] for entry in objects(consumer.merged.read_bytes())]
    ends = [TEXT.index("\n", sum(len(l) for l in TEXT.splitlines(True)[:i])) + 1 for i in range(len(LINES) - 1)]
    assert offsets == [0, *(len((mark + TEXT[:end]).encode(codec)) for end in ends)]


def test_files_of_both_byte_orders_are_told_apart(lab: Lab) -> None:
    sources = {
        lab.source("little.log"): "\ufeff".encode("utf-16-le") + TEXT.encode("utf-16-le"),
        lab.source("big.log"): "\ufeff".encode("utf-16-be") + TEXT.encode("utf-16-be"),
        lab.source("bare.log"): TEXT.encode("utf-16-be"),
    }
    consumer = lines_consumer(lab, "--encoding", "utf-16")

    for source, data in sources.items():
        source.append(data)
    for source in sources:
        lab.wait_until(lambda: records_of(consumer, source) == LINES, f"the lines of {source.path.name} are there")
    lab.wait_mirrored(consumer)

    # In the middle of a file there is no mark any more.
    consumer.kill9()
    for source in sources:
        source.append("more\n".encode("utf-16-le" if source.path.name == "little.log" else "utf-16-be"))
    consumer.start()
    for source in sources:
        lab.wait_until(lambda: records_of(consumer, source) == [*LINES, "more"], f"{source.path.name} goes on")


def test_latin_1_becomes_utf_8(lab: Lab) -> None:
    source = lab.source()
    consumer = lines_consumer(lab, "--encoding", "latin-1")
    source.append(b"gr\xfc\xdfe\r\n\xff\x80\n")

    lab.wait_until(lambda: records_of(consumer, source) == ["gr\u00fc\u00dfe", "\u00ff\u0080"], "the lines are there")
    lab.wait_mirrored(consumer)


def test_what_is_no_text_is_replaced_and_counted(lab: Lab) -> None:
    source = lab.source()
    consumer = lines_consumer(lab, "--encoding", "utf-8")
    source.append(b"a\xff\xfeb\n\xe2\x82\n")

    lab.wait_until(lambda: records_of(consumer, source) == ["a\ufffd\ufffdb", "\ufffd"], "the lines are there")
    lab.wait_mirrored(consumer)
    assert consumer.terminate() == 0
    assert "characters_replaced=3" in consumer.stderr()


def test_raw_lines_keep_their_carriage_return_until_a_flag_speaks_of_lines(lab: Lab) -> None:
    data = b"one\r\ntwo\n\r\nlone\rreturn\n"
    source = lab.source()
    link = lab.link("tcp", consumers=[LOOPBACK] * 3)
    plain, stripped, kept = (
        lab.consumer(seat, *flags, name=name, mirror=True, merged=True)
        for seat, name, flags in zip(
            link.consumers,
            ("plain", "stripped", "kept"),
            ((), ("--crlf", "strip"), ("--encoding", "utf-8", "--crlf", "keep")),
        )
    )
    lab.producer(link.producers[0])
    source.append(data)

    lab.wait_until(lambda: plain.merged.read_bytes() == data, "raw lines are the file's own")
    lab.wait_until(lambda: kept.merged.read_bytes() == data, "and when asked to be kept")
    lab.wait_until(lambda: stripped.merged.read_bytes() == b"one\ntwo\n\nlone\rreturn\n", "no returns at the ends")
    lab.wait_mirrored(plain, stripped, kept)


@pytest.mark.parametrize(
    "policy, expected, counted",
    (
        ("split", ["x" * 100, "x" * 100, "x" * 50, "y" * 100, "end"], "lines_split=2"),
        ("truncate", ["x" * 100, "y" * 100, "end"], "lines_truncated=1"),
        ("skip", ["y" * 100, "end"], "lines_skipped=1"),
    ),
)
def test_long_lines(lab: Lab, policy: str, expected: list[str], counted: str) -> None:
    source = lab.source()
    consumer = lines_consumer(lab, "--max-line", f"100:{policy}")
    source.append(b"x" * 120)
    lab.wait_mirrored(consumer)
    source.append(b"x" * 130 + b"\r\n" + b"y" * 100 + b"\r\nend\n")

    lab.wait_until(lambda: records_of(consumer, source) == expected, "the lines are there")
    lab.wait_mirrored(consumer)
    assert consumer.terminate() == 0
    assert counted in consumer.stderr()


def test_a_line_longer_than_any_chunk_costs_one_record(lab: Lab) -> None:
    source = lab.source()
    consumer = lines_consumer(lab, "--max-line", "4K:truncate")
    source.append(b"z" * 3_000_000 + b"\nend\n")

    lab.wait_until(lambda: records_of(consumer, source) == ["z" * 4096, "end"], "its beginning is there")
    lab.wait_mirrored(consumer)


@pytest.mark.parametrize("output", ("file", "stdout"))
def test_stack_traces_of_two_files_are_one_record_each(lab: Lab, output: str) -> None:
    """Their lines arrive in turns."""
    sources = {"java": (lab.source("a.log"), JAVA), "python": (lab.source("b.log"), PYTHON)}
    link = lab.link("tcp", consumers=[LOOPBACK] * 2)
    consumers = {
        preset: lab.consumer(
            seat,
            *("--format", "jsonl", "--multiline", preset, "--multiline-timeout", "600"),
            *(() if output == "file" else ("--output", "stdout")),
            name=preset,
            mirror=True,
            merged=output == "file",
        )
        for preset, seat in zip(sources, link.consumers)
    }
    lab.producer(link.producers[0])

    rest = [[line + "\n" for line in "\n".join(records).split("\n")] for _, records in sources.values()]
    while any(rest):
        for (source, _), lines in zip(sources.values(), rest):
            if lines:
                source.append(lines.pop(0).encode())
        lab.wait_mirrored(*consumers.values())

    for preset, (source, records) in sources.items():
        consumer = consumers[preset]

        def found() -> list[dict[str, Any]]:
            return objects(consumer.merged.read_bytes() if output == "file" else consumer.stdout())

        lab.wait_until(lambda: texts_of(found(), source) == records[:-1], f"the records of {preset} are whole")
        offsets = [entry["offset"] for entry in found() if entry["path"] == str(source.path)]
        assert offsets == [len(("\n".join(records[:i]) + "\n").encode()) if i else 0 for i in range(len(offsets))]
        # The last one waits for more of it. The end of the file is the end of it.
        source.rotate("old")
        source.append(b"new\n")
        lab.wait_until(lambda: len(found()) > len(records) - 1, "the consumer goes on")
    lab.wait_mirrored(*consumers.values())


def test_own_rules_and_filters_are_for_whole_records(lab: Lab) -> None:
    source = lab.source()
    consumer = lines_consumer(
        lab,
        *("--multiline-start", r"^\d+ ", "--multiline-timeout", "0.5"),
        *("--include-line", "(?m)^detail", "--include-line", "URGENT", "--exclude-line", "secret"),
    )
    source.append(b"1 a\ndetail\n2 b\nother\n3 URGENT\n4 c\ndetail\nsecret\n5 d\ndetail\n")

    lab.wait_until(lambda: records_of(consumer, source) == ["1 a\ndetail", "3 URGENT", "5 d\ndetail"], "three are taken")
    lab.wait_mirrored(consumer)
    assert consumer.terminate() == 0
    assert "records_filtered=2" in consumer.stderr()


def test_once_has_the_last_record(lab: Lab) -> None:
    source = lab.source()
    source.append(b"1 a\nmore\n2 b\nmore\n")
    link = lab.link("tcp")
    flags = ("--multiline-start", r"^\d", "--multiline-timeout", "1", "--once")
    consumer = lab.consumer(link.consumers[0], *flags, merged=True)
    lab.producer(link.producers[0])

    assert consumer.wait_exit() == 0
    assert consumer.merged.read_bytes() == source.text()


def test_kills_in_the_middle_of_records_leave_each_once(lab: Lab) -> None:
    """Two UTF-16 files of records of many lines; the consumer dies again and again, also within a line."""
    sources = [lab.source("a.log"), lab.source("b.log")]
    consumer = lines_consumer(
        lab,
        *("--encoding", "utf-16le", "--multiline-continue", r"^\s", "--multiline-timeout", "600", "--sync", "0.05"),
    )
    expected: dict[Source, list[str]] = {source: [] for source in sources}
    pending: dict[Source, bytes] = {source: b"" for source in sources}

    def write(source: Source, count: int) -> None:
        for _ in range(count):
            number = len(expected[source])
            lines = [f"record {number} \U0001f600", *(f"\tof {number}: {i}" for i in range(lab.rng.randrange(5)))]
            expected[source].append("\n".join(lines))
            pending[source] += "".join(line + "\r\n" for line in lines).encode("utf-16-le")
        cut = lab.rng.randrange(len(pending[source]))
        source.append(pending[source][:cut])
        pending[source] = pending[source][cut:]

    for _ in range(12):
        for source in sources:
            write(source, lab.rng.randrange(1, 2000))
        pace(lab.rng.uniform(0.02, 0.25))
        consumer.kill9()
        write(lab.rng.choice(sources), 10)
        consumer.start()
    for source in sources:
        source.append(pending[source] + "the end\n".encode("utf-16-le"))

    for source in sources:
        lab.wait_until(lambda: len(records_of(consumer, source)) >= len(expected[source]), f"{source.path.name} is there")
        assert records_of(consumer, source) == expected[source]
    lab.wait_mirrored(consumer)


def test_all_mistakes_are_told_at_once(lab: Lab) -> None:
    mistakes = {
        ("--encoding", "ebcdic"): ("utf-16le", "latin-1"),
        ("--crlf", "maybe"): ("strip", "keep"),
        ("--max-line", "10"): ("64", "truncate"),
        ("--multiline", "cobol"): ("java", "python"),
        ("--multiline-start", "(unclosed"): ("missing )", "RE2"),
        ("--multiline-continue", "[z-a]"): ("invalid character class range", "RE2"),
        ("--multiline-timeout", "0"): ("--multiline-timeout",),
        ("--include-line", "(?=ahead)"): ("invalid perl operator", "RE2"),
        ("--exclude-line", "*"): ("no argument for repetition operator", "RE2"),
    }

    done = lab.run("fantail-consumer", *(word for flag in mistakes for word in flag))

    assert done.code == USAGE
    for (flag, value), remedy in mistakes.items():
        for words in (flag, value, *remedy):
            assert words in done.err, f"{words!r} is not in\n{done.err}"


def test_rules_for_lines_without_lines_are_refused(lab: Lab) -> None:
    done = lab.run("fantail-consumer", "--output", f"mirror:{lab.root}/m", "--multiline", "java", "--check")

    assert done.code == USAGE
    assert "--multiline: there are no lines" in done.err
