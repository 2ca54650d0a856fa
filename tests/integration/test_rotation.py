"""Merged files that are rotated and compressed: every line exactly once over all of them, whoever is killed or moves a file."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fantail_lab import Agent, Consumer, Lab, pace
from fantail_sources import LogWriter, digest, kept_files, line_difference

ROTATE_BYTES = 100_000
BYTES_PER_SECOND = 3_000_000
BYTES_PER_SECOND_TO_COMPRESS = 12_000_000  # so much that frames are written between commits, too
KILLS = 15

_STAMP = re.compile(r"\.(?P<stamp>\d{8}T\d{6}Z)(\.(?P<count>\d+))?(\.zst)?$")
KINDS = ("plain", "zst")


class Output:
    """The file of one `file:` output and those that left its path."""

    def __init__(self, consumer: Consumer, kind: str) -> None:
        self.path = consumer.folder / "out" / ("merged.log.zst" if kind == "zst" else "merged.log")
        self.compressed = kind == "zst"

    @property
    def flag(self) -> str:
        return f"file:{self.path}"

    def rotated(self) -> list[Path]:
        """The renamed files, oldest first."""

        def age(path: Path) -> tuple[str, int]:
            stamp = _STAMP.search(path.name)
            assert stamp, f"a file without a time in its name: {path}"
            return stamp["stamp"], int(stamp["count"] or 0)

        return sorted((path for path in self.path.parent.iterdir() if path != self.path), key=age)

    def text(self) -> bytes:
        """Everything in all files, in order."""
        return self.text_of([*self.rotated(), *([self.path] if self.path.exists() else [])])

    def text_of(self, files: list[Path]) -> bytes:
        """What `cat`, or `zstd -dc`, prints of the files."""
        if not self.compressed:
            return b"".join(path.read_bytes() for path in files)
        return subprocess.run(["zstd", "-dcq", *files], capture_output=True, check=True).stdout if files else b""

    def wait_complete(self, lab: Lab, deadline: float = 40) -> None:
        """Every line that was written is in one of the files once, and each is in its place."""
        kept = kept_files(lab.sources)
        expected = sum(path.stat().st_size for path in kept)

        def everything() -> bytes:
            try:
                text = self.text()
            except subprocess.CalledProcessError:  # renamed meanwhile, or the last frame is being written
                return b""
            return text if len(text) >= expected else b""

        text = lab.wait_until(everything, f"all {expected} bytes of lines are in the files of {self.path}", deadline)
        wrong = line_difference(kept, text)
        assert not wrong, f"the lines in the files of {self.path}:\n{wrong}"


def rotating(lab: Lab, kind: str, *flags: str) -> tuple[Agent, Consumer, Output]:
    """A producer, and a consumer that commits often and rotates as the flags say."""
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], "--sync", "0.05", *flags, start=False)
    output = Output(consumer, kind)
    consumer.flags += ["--output", output.flag]
    consumer.start()
    return lab.producer(link.producers[0]), consumer, output


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_kills_while_files_are_rotated_lose_and_repeat_no_line(lab: Lab, kind: str) -> None:
    source = lab.source()
    _, consumer, output = rotating(lab, kind, "--rotate-bytes", str(ROTATE_BYTES))
    seen: dict[Path, str] = {}

    with LogWriter(source, BYTES_PER_SECOND_TO_COMPRESS if output.compressed else BYTES_PER_SECOND):
        for _ in range(KILLS):
            pace(lab.rng.uniform(0.05, 0.5))
            consumer.kill9()
            for path in output.rotated() if output.path.parent.exists() else ():
                assert seen.setdefault(path, digest(path)) == digest(path), f"{path} has changed since it was renamed"
            consumer.start()

    output.wait_complete(lab)
    assert consumer.terminate() == 0
    output.wait_complete(lab)
    for path in output.rotated():
        assert path.stat().st_size >= ROTATE_BYTES, f"{path} was renamed too early"
        assert seen.get(path, digest(path)) == digest(path), f"{path} has changed since it was renamed"
        assert output.text_of([path]).endswith(b"\n"), f"{path} ends within a line"
    assert len(output.rotated()) >= 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_rotated_by_its_age_though_nothing_else_comes(lab: Lab, kind: str) -> None:
    source = lab.source()
    _, consumer, output = rotating(lab, kind, "--rotate-every", "1")
    lines = source.append_lines(10)
    output.wait_complete(lab)

    lab.wait_until(lambda: len(output.rotated()) == 1, "the file is rotated")
    assert output.text_of(output.rotated()) == lines
    source.append_lines(10)

    output.wait_complete(lab)
    assert consumer.terminate() == 0
    output.wait_complete(lab)


@pytest.mark.parametrize("how", ("create", "nocreate"))
def test_an_output_moved_away_by_logrotate_loses_and_repeats_no_line(lab: Lab, how: str) -> None:
    """The tool that people have for it, without telling fantail anything."""
    if shutil.which("logrotate") is None:
        pytest.skip("logrotate is not installed")
    source = lab.source()
    _, consumer, output = rotating(lab, "plain")
    rules = lab.root / "logrotate.conf"
    rules.write_text(f"{output.path} {{\n  rotate 100\n  {how}\n  nocompress\n}}\n")
    rules.chmod(0o600)

    with LogWriter(source, BYTES_PER_SECOND):
        for turn in range(1, 6):
            size = output.path.stat().st_size if output.path.exists() else 0
            lab.wait_until(lambda: output.path.stat().st_size > size, "more arrives under the path")
            command = ["logrotate", "--force", "--state", lab.root / "logrotate.state", rules]
            subprocess.run(command, check=True, capture_output=True)
            assert output.path.with_name(f"merged.log.{turn}").exists()

    newest_first = [output.path, *(output.path.with_name(f"merged.log.{turn}") for turn in range(1, 6))]
    kept = kept_files(lab.sources)

    def text() -> bytes:
        return b"".join(path.read_bytes() for path in reversed(newest_first) if path.exists())

    lab.wait_until(lambda: len(text()) >= len(source.text()), "all lines are in the files")
    wrong = line_difference(kept, text())
    assert not wrong, f"the lines in the files:\n{wrong}"
    assert consumer.terminate() == 0


def test_after_every_commit_a_compressed_file_has_all_lines(lab: Lab) -> None:
    source = lab.source()
    _, consumer, output = rotating(lab, "zst")
    for count in (1, 100, 5000, 1):
        source.append_lines(count)
        output.wait_complete(lab)
    assert consumer.terminate() == 0
    assert output.path.stat().st_size < len(source.text()) / 2


def test_mistakes_in_the_flags_of_rotation_are_told_with_the_others(lab: Lab) -> None:
    done = lab.run("fantail-consumer", "--rotate-bytes", "10", "--rotate-every", "0.5", "--from", "yesterday")

    assert done.code == 2
    for part in ("--rotate-bytes '10'", "4K", "--rotate-every '0.5'", "1 second", "--output file:PATH", "yesterday"):
        assert part in done.err

    done = lab.run("fantail-consumer", "--rotate-bytes", "much", "--rotate-every", "-1", "--output", "file:x")

    assert done.code == 2
    for part in ("--rotate-bytes 'much'", "16MiB", "--rotate-every '-1'", "seconds"):
        assert part in done.err
