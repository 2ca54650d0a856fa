"""Lines as consumers print them: formats, path templates, unfinished lines, losses."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from fantail_lab import LOOPBACK, Consumer, Lab


def objects(consumer: Consumer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in consumer.merged_lines()]


def test_stdout_shows_the_lines_as_they_come(lab: Lab) -> None:
    source = lab.source()
    source.append_lines(100)
    _, consumer = lab.pair(mirror=False)

    lab.wait_until(lambda: consumer.stdout() == source.text(), "all lines are printed")


def test_jsonl_says_where_each_line_came_from(lab: Lab) -> None:
    source = lab.source()
    lines = [b"plain", b"", "gr\u00fc\u00dfe \u2713".encode(), b"not utf-8: \xff\xfe", b'quotes " and \\ and \t', b"nul \0"]
    source.append(b"".join(line + b"\n" for line in lines))
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], "--format", "jsonl", merged=True)
    lab.producer(link.producers[0], globs=[f"web/access={source.path}"])

    lab.wait_until(lambda: len(consumer.merged_lines()) == len(lines), "all lines are there")

    offset = 0
    streams = set()
    for line, entry in zip(lines, objects(consumer)):
        assert (entry["node"], entry["topic"], entry["path"]) == ("alpha", "web/access", str(source.path))
        assert entry["offset"] == offset
        assert entry["time"]
        streams.add(entry["stream"])
        if b"\xff" in line:
            assert "line" not in entry
            assert base64.b64decode(entry["line_base64"], validate=True) == line
        else:
            assert "line_base64" not in entry
            assert entry["line"].encode() == line
        offset += len(line) + 1
    assert len(streams) == 1


def test_a_template_chooses_the_fields(lab: Lab) -> None:
    source = lab.source()
    source.append(b"one\ntwo\n")
    link = lab.link("tcp")
    template = "{topic}|{node}|{path}|{offset}|{line}"
    consumer = lab.consumer(link.consumers[0], "--format", template, merged=True)
    lab.producer(link.producers[0], globs=[f"web={source.path}"])

    lab.wait_until(lambda: len(consumer.merged_lines()) == 2, "both lines are there")

    start = f"web|alpha|{source.path}|"
    assert consumer.merged_lines() == [f"{start}0|one".encode(), f"{start}4|two".encode()]


def test_a_path_template_sorts_the_lines(lab: Lab) -> None:
    link = lab.link("tcp", producers=[LOOPBACK] * 2)
    out = lab.root / "sorted"
    lab.consumer(link.consumers[0], "--output", f"file:{out}/{{topic}}-{{node}}-{{basename}}")
    expected = {}
    for seat, node in zip(link.producers, ("alpha", "beta")):
        source = lab.source(node=node)
        expected[out / f"web-{node}-app.log"] = source.append_lines(100)
        lab.producer(seat, node=node, globs=[f"web={source.path}"])

    def found() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in out.iterdir()}

    lab.wait_until(lambda: found() == expected, f"the lines are in {[path.name for path in expected]}")


def test_an_unfinished_line_waits_for_its_end(lab: Lab) -> None:
    source = lab.source()
    _, consumer = lab.pair(mirror=True, merged=True)
    source.append(b"one\ntw")
    lab.wait_mirrored(consumer)
    lab.wait_line(consumer, b"one")

    source.append(b"o\nthree\n")

    lab.wait_until(lambda: consumer.merged_lines() == [b"one", b"two", b"three"], "whole lines only")


def test_the_unfinished_last_line_of_a_sealed_stream_is_a_line(lab: Lab) -> None:
    source = lab.source()
    _, consumer = lab.pair(mirror=True, merged=True)
    source.append(b"one\nlast words")
    lab.wait_mirrored(consumer)

    source.rewrite(b"new\n")

    lab.wait_line(consumer, b"new")
    lab.wait_line(consumer, b"last words")
    assert sorted(consumer.merged_lines()) == [b"last words", b"new", b"one"]


def test_stdout_shows_an_unfinished_line_after_a_while(lab: Lab) -> None:
    source = lab.source()
    _, consumer = lab.pair(mirror=False)

    source.append(b"password: ")

    lab.wait_until(lambda: b"password: " in consumer.stdout(), "the unfinished line is printed")


def test_a_loss_is_told_in_the_output_and_by_the_exit_code(lab: Lab) -> None:
    source = lab.source()
    link = lab.link("tcp", consumers=[LOOPBACK] * 2)
    witness = lab.consumer(link.consumers[0], name="witness", mirror=True)
    victim = lab.consumer(link.consumers[1], "--format", "jsonl", name="victim", merged=True)
    lab.producer(link.producers[0])
    seen = len(source.append_lines(10))
    lab.wait_until(lambda: len(victim.merged_lines()) == 10, "the first lines are there")
    assert victim.terminate() == 0
    missed = len(source.append_lines(10))
    lab.wait_mirrored(witness)

    # The only copy of what the victim missed is gone, and the producer has seen how much it was.
    source.truncate()
    fresh = source.append_lines(3).decode().splitlines()
    lab.wait_mirrored(witness)
    victim.start("--idle-exit", "1")

    assert victim.wait_exit() == 3
    later = objects(victim)[10:]
    [loss] = [entry["loss"] for entry in later if "loss" in entry]
    assert (loss["from"], loss["to"]) == (seen, seen + missed)
    assert loss["reason"]
    assert [entry["line"] for entry in later if "line" in entry] == fresh
