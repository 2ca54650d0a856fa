"""Compressed files: what is in them arrives, byte for byte, as one stream; what cannot be read is a loss and no stop."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from fantail_lab import Agent, Consumer, Lab, pace
from fantail_meddler import Meddler, Parts, kind_of

CHUNK = 1
LOSS = 3
MIB = 1024 * 1024
RSS_BOUND = 64 * MIB


def text(lab: Lab, size: int) -> bytes:
    """Lines of words that compress as logs do."""
    words = [b"%x" % lab.rng.getrandbits(40) for _ in range(500)]
    lines = [b" ".join(lab.rng.choices(words, k=8)) for _ in range(2000)]
    out = b""
    while len(out) < size:
        out += b"\n".join(lab.rng.sample(lines, 1500)) + b"\n"
    return out[: size - 1] + b"\n"


def packed(program: str, plain: bytes, *flags: str) -> bytes:
    return subprocess.run([program, "-c", *flags], input=plain, capture_output=True, check=True).stdout


def gz(plain: bytes) -> bytes:
    return packed("gzip", plain)


def zst(plain: bytes) -> bytes:
    return packed("zstd", plain)


def pzst(lab: Lab, plain: bytes) -> bytes:
    """As pzstd writes it: before each frame one to be skipped, with that one's length."""
    path = lab.root / "to-be-packed"
    path.write_bytes(plain)
    return subprocess.run(["pzstd", "-q", "-c", "-p", "4", path], capture_output=True, check=True).stdout


def skippable(content: bytes, number: int = 0) -> bytes:
    """A frame with something that is not part of the text."""
    return (0x184D2A50 + number).to_bytes(4, "little") + len(content).to_bytes(4, "little") + content


class Backlog:
    """Files in the folder of a node, with what their streams have to be."""

    def __init__(self, lab: Lab) -> None:
        self.folder = lab.files_of("alpha")
        self.plain: dict[str, bytes] = {}

    def add(self, name: str, content: bytes, plain: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        old = time.time() - 3600
        os.utime(path, (old, old))
        self.plain[name] = plain
        return path

    def fill(self, lab: Lab, size: int) -> None:
        for i in range(3):
            plain = text(lab, size)
            self.add(f"one-{i}.gz", gz(plain), plain)
            self.add(f"one-{i}.zst", zst(plain), plain)
        parts = [text(lab, size // 4) for _ in range(4)]
        self.add("members.gz", b"".join(map(gz, parts)), b"".join(parts))
        self.add("frames.zst", b"".join(map(zst, parts)), b"".join(parts))
        self.add("no-name", gz(parts[0]), parts[0])
        self.add("plain.log", parts[1], parts[1])
        self.add("only-a-name.gz", parts[2], parts[2])
        self.add("empty.gz", gz(b""), b"")
        self.add("padded.gz", gz(parts[3]) + bytes(2000), parts[3])

    def mirrored(self, consumer: Consumer, name: str) -> Path:
        return consumer.mirror / "alpha" / str(self.folder / name).lstrip("/")

    def differences(self, consumer: Consumer) -> list[str]:
        out = []
        for name, plain in self.plain.items():
            path = self.mirrored(consumer, name)
            got = path.read_bytes() if path.exists() else None
            if (got or b"") != plain:
                out.append(f"{name}: {None if got is None else len(got)} of {len(plain)} bytes")
        return out

    def wait_mirrored(self, lab: Lab, consumer: Consumer) -> None:
        lab.wait_until(
            lambda: not self.differences(consumer),
            "all is mirrored",
            deadline=60,
            explain=lambda: "\n".join(self.differences(consumer)),
        )

    def lines(self) -> list[bytes]:
        return [line for plain in self.plain.values() for line in plain.splitlines()]


def entries(consumer: Consumer) -> list[dict]:
    return [json.loads(line) for line in consumer.merged_lines()]


def offsets_are_right(backlog: Backlog, consumer: Consumer) -> bool:
    """Every line is there once, at its own offset."""
    got = sorted((Path(e["path"]).name, e["offset"], e["line"]) for e in entries(consumer) if "line" in e)
    wanted = []
    for name, plain in backlog.plain.items():
        at = 0
        for line in plain.splitlines(keepends=True):
            wanted.append((name, at, line.decode().rstrip("\n")))
            at += len(line)
    return got == sorted(wanted)


def json_pair(lab: Lab, link, *producer_flags: str, start: bool = True) -> tuple[Agent, Consumer]:
    consumer = lab.consumer(link.consumers[0], "--format", "jsonl", mirror=True, merged=True)
    return lab.producer(link.producers[0], *producer_flags, start=start), consumer


def test_what_is_in_archives_arrives_byte_for_byte(lab: Lab) -> None:
    backlog = Backlog(lab)
    backlog.fill(lab, 2 * MIB)
    producer, consumer = json_pair(lab, lab.link("tcp"), "--once")
    assert producer.wait_exit() == 0
    assert backlog.differences(consumer) == []
    assert consumer.terminate() == 0
    assert offsets_are_right(backlog, consumer)


@pytest.mark.skipif(shutil.which("pzstd") is None, reason="pzstd is not installed")
def test_archives_of_pzstd_arrive_byte_for_byte(lab: Lab) -> None:
    backlog = Backlog(lab)
    plain = text(lab, MIB) * 20
    content = pzst(lab, plain)
    assert content[1:4] == skippable(b"")[1:4], "it begins with a frame to be skipped"
    assert content.count(skippable(bytes(4))[:8]) > 1, "and so does each other part"
    backlog.add("parallel.zst", content, plain)
    producer, consumer = lab.pair("--once")
    assert producer.wait_exit() == 0
    assert backlog.differences(consumer) == []


def test_frames_to_be_skipped_are_skipped_wherever_they_are(lab: Lab) -> None:
    backlog = Backlog(lab)
    one, two = text(lab, 100_000), text(lab, 100_000)
    frames = {
        "before": skippable(b"before", 3) + zst(one) + zst(two),
        "between": zst(one) + skippable(bytes(100_000), 15) + skippable(b"") + zst(two),
        "behind": zst(one) + zst(two) + skippable(b"behind"),
        "all-over": skippable(b"1") + skippable(b"2") + zst(one) + skippable(b"3") + zst(two) + skippable(b"4"),
    }
    for name, content in frames.items():
        backlog.add(name, content, one + two)
    backlog.add("alone", skippable(b"nothing but this"), b"")
    producer, consumer = lab.pair("--once")
    assert producer.wait_exit() == 0
    assert backlog.differences(consumer) == []
    # What is appended goes on, whatever kind of frame it is.
    for name in frames:
        with (backlog.folder / name).open("ab") as out:
            out.write(skippable(b"more") + zst(one))
        backlog.plain[name] += one
    producer.start()
    assert producer.wait_exit() == 0
    assert backlog.differences(consumer) == []


def test_the_raw_bytes_arrive_when_that_is_asked_for(lab: Lab) -> None:
    backlog = Backlog(lab)
    for name, pack in (("a.gz", gz), ("a.zst", zst)):
        content = pack(text(lab, 100_000))
        backlog.add(name, content, content)
    producer, consumer = lab.pair("--once", "--archives", "raw")
    assert producer.wait_exit() == 0
    assert backlog.differences(consumer) == []


@pytest.mark.parametrize("who", ("producer", "consumer"))
def test_a_kill_in_the_middle_loses_and_repeats_nothing(lab: Lab, who: str) -> None:
    backlog = Backlog(lab)
    backlog.fill(lab, 6 * MIB)
    producer, consumer = json_pair(lab, lab.link("tcp"), "--rate", "200")
    victim = producer if who == "producer" else consumer

    def delivered() -> int:
        return sum(f.stat().st_size for f in consumer.mirror.rglob("*") if f.is_file())

    for part in (8, 3, 2):
        wanted = sum(map(len, backlog.plain.values())) // part
        lab.wait_until(lambda: delivered() >= wanted, f"1/{part} is delivered")
        victim.kill9()
        victim.start()
    backlog.wait_mirrored(lab, consumer)
    assert producer.terminate() == 0
    assert consumer.terminate() == 0
    assert offsets_are_right(backlog, consumer)


def test_a_fifth_of_all_chunks_lost_is_fetched(lab: Lab) -> None:
    backlog = Backlog(lab)
    backlog.fill(lab, 3 * MIB)
    lost = 0

    def damage(parts: Parts) -> Parts:
        nonlocal lost
        if kind_of(parts) != CHUNK or lab.rng.random() > 0.2:
            return parts
        lost += 1
        return [*parts[:-1], bytes(len(parts[-1]))]  # its digest is wrong: as if it had never come

    with Meddler(damage).between(lab.link("tcp"), lab.ports) as link:
        producer, consumer = json_pair(lab, link, "--chunk", "65536")
        backlog.wait_mirrored(lab, consumer)
        assert lost > 10
        assert producer.terminate() == 0
        assert consumer.terminate() == 0
    assert offsets_are_right(backlog, consumer)


def test_a_late_joiner_fetches_from_the_beginning_and_again_after_a_restart(lab: Lab) -> None:
    backlog = Backlog(lab)
    backlog.fill(lab, 3 * MIB)
    link = lab.link("tcp-bind")
    early = lab.consumer(link.consumers[0], mirror=True)
    producer = lab.producer(link.producers[0])
    backlog.wait_mirrored(lab, early)
    late = lab.consumer(link.consumers[0], name="late", mirror=True)
    backlog.wait_mirrored(lab, late)
    assert producer.terminate() == 0
    producer.start()
    latest = lab.consumer(link.consumers[0], name="latest", mirror=True)
    backlog.wait_mirrored(lab, latest)


def test_with_a_lost_registry_archives_go_on(lab: Lab) -> None:
    backlog = Backlog(lab)
    backlog.fill(lab, MIB)
    producer, consumer = json_pair(lab, lab.link("tcp"))
    backlog.wait_mirrored(lab, consumer)
    assert producer.terminate() == 0
    (lab.state_of("producer-alpha") / "registry.db").write_bytes(b"damaged" * 1000)
    for name in ("one-0.gz", "one-0.zst"):
        more = text(lab, 100_000)
        with (backlog.folder / name).open("ab") as out:
            out.write(gz(more) if name.endswith("gz") else zst(more))
        backlog.plain[name] += more
    producer.start()
    backlog.wait_mirrored(lab, consumer)
    assert producer.terminate() == 0
    assert consumer.terminate() == 0
    assert offsets_are_right(backlog, consumer)


@pytest.mark.parametrize("pack", (gz, zst))
def test_a_damaged_archive_is_a_loss_and_stops_nobody(lab: Lab, pack) -> None:
    backlog = Backlog(lab)
    backlog.fill(lab, MIB)
    plain = text(lab, 4 * MIB)
    content = pack(plain)
    truncated = backlog.add("truncated", content[: len(content) // 2], plain)
    middle = len(content) // 2
    damaged = backlog.add("damaged", content[:middle] + bytes([0x55] * 64) + content[middle + 64 :], plain)
    nothing = backlog.add("nothing", content[:4], b"")
    first = plain[: MIB // 2]
    garbage = backlog.add("garbage", pack(first) + b"garbage", first)
    producer, consumer = json_pair(lab, lab.link("tcp"), "--once")
    assert producer.wait_exit() == LOSS

    losses = {}
    for path in (truncated, damaged, nothing, garbage):
        plain = backlog.plain.pop(path.name)
        mirrored = backlog.mirrored(consumer, path.name)
        [entry] = lab.wait_until(
            lambda: [e for e in entries(consumer) if e["path"] == str(path) and "loss" in e], f"the loss of {path.name} is told"
        )
        loss = entry["loss"]
        losses[path.name] = loss["from"]
        assert loss["to"] == loss["from"] + 1
        assert "archive" in loss["reason"]
        # A damaged gzip may go on with other bytes, up to its checksum.
        sure = MIB if path == damaged else loss["from"]
        assert mirrored.read_bytes()[:sure] == plain[:sure] or path == nothing
    assert losses["nothing"] == 0
    assert losses["garbage"] == len(first)
    assert losses["truncated"] > MIB
    assert losses["damaged"] > MIB
    assert backlog.differences(consumer) == []

    # It is not sent again.
    found = producer.stderr().count("file found")
    producer.start()
    assert producer.wait_exit() == 0
    assert producer.stderr().count("file found") == found
    assert consumer.terminate() == LOSS


def test_what_could_be_read_of_a_damaged_archive_is_there_for_late_joiners(lab: Lab) -> None:
    backlog = Backlog(lab)
    plain = text(lab, 4 * MIB)
    content = zst(plain)
    path = backlog.add("damaged.zst", content[: len(content) // 2], plain)
    link = lab.link("tcp-bind")
    producer = lab.producer(link.producers[0])

    def loss_of(name: str) -> int:
        consumer = lab.consumer(link.consumers[0], "--format", "jsonl", name=name, mirror=True, merged=True)
        [loss] = lab.wait_until(lambda: [e["loss"] for e in entries(consumer) if "loss" in e], f"{name} tells the loss")
        at = loss["from"]
        assert at > MIB
        assert backlog.mirrored(consumer, path.name).read_bytes()[:at] == plain[:at]
        return at

    first = loss_of("early")
    assert loss_of("late") == first
    producer.kill9()
    producer.start()
    assert loss_of("later") == first

    # Mended, it is another stream.
    path.write_bytes(content)
    last = lab.consumer(link.consumers[0], name="last", mirror=True)
    backlog.wait_mirrored(lab, last)


def test_an_archive_that_is_being_written_is_waited_for(lab: Lab) -> None:
    """As gzip of a rotator does: written slowly with the file open, then the plain file is removed."""
    plain = text(lab, 4 * MIB)
    content = gz(plain)
    _, consumer = lab.pair()
    backlog = Backlog(lab)
    path = backlog.folder / "slow.gz"
    with path.open("wb", buffering=0) as out:
        pieces = [content[i : i + len(content) // 6] for i in range(0, len(content), len(content) // 6)]
        for i, piece in enumerate(pieces):
            out.write(piece)
            mirrored = backlog.mirrored(consumer, "slow.gz")
            least = len(plain) * i // 8
            lab.wait_until(lambda: least == 0 or (mirrored.exists() and mirrored.stat().st_size >= least), "it is followed")
            if i == 3:
                pace(2.5)  # two looks at what ends within a member: somebody has it open
    backlog.plain["slow.gz"] = plain
    backlog.wait_mirrored(lab, consumer)
    more = text(lab, 100_000)
    with path.open("ab") as out:
        out.write(gz(more))
    backlog.plain["slow.gz"] = plain + more
    backlog.wait_mirrored(lab, consumer)
    assert consumer.terminate() == 0, "nothing was lost"


def test_an_archive_deleted_or_replaced_while_it_is_read(lab: Lab) -> None:
    backlog = Backlog(lab)
    plain, other = text(lab, 8 * MIB), text(lab, MIB)
    deleted = backlog.add("deleted.gz", gz(plain), plain)
    backlog.add("replaced.zst", zst(plain), plain)
    _, consumer = lab.pair("--rate", "100")
    lab.wait_until(lambda: list(consumer.mirror.rglob("*.gz")), "it has begun")
    deleted.unlink()
    fresh = backlog.folder.parent / "fresh"
    fresh.write_bytes(gz(other))
    fresh.rename(backlog.folder / "replaced.zst")

    def all_is_there() -> bool:
        live = backlog.mirrored(consumer, "replaced.zst")
        older = sorted(live.parent.glob("replaced.zst@*"))
        at_hand = backlog.mirrored(consumer, "deleted.gz")
        return (
            at_hand.exists()
            and at_hand.read_bytes() == plain
            and live.exists()
            and live.read_bytes() == other
            and [path.read_bytes() for path in older] == [plain]
        )

    lab.wait_until(all_is_there, "all three contents are mirrored")


@pytest.mark.parametrize("program", ("gzip", "zstd"))
def test_a_bomb_is_read_with_little_memory(lab: Lab, program: str) -> None:
    size = 1024 * MIB
    path = lab.files_of("alpha") / "bomb"
    with path.open("wb") as out:
        zeros = subprocess.Popen(["head", "-c", str(size), "/dev/zero"], stdout=subprocess.PIPE)
        subprocess.run([program, "-1", "-c"], stdin=zeros.stdout, stdout=out, check=True)
        zeros.wait()
    link = lab.link("tcp")
    consumer = lab.consumer(link.consumers[0], mirror=True)
    producer = lab.producer(link.producers[0])
    mirrored = consumer.mirror / "alpha" / str(path).lstrip("/")
    lab.wait_until(lambda: mirrored.exists() and mirrored.stat().st_size == size, "all of it is mirrored", deadline=60)
    status = Path(f"/proc/{producer.pid}/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    assert peak < RSS_BOUND
    shutil.rmtree(consumer.mirror)


def test_archives_do_not_hold_up_a_live_file(lab: Lab) -> None:
    """Lines of a file that is written go out between the pieces of a large archive."""
    backlog = Backlog(lab)
    plain = text(lab, 32 * MIB)
    backlog.add("large.gz", gz(plain), plain)
    live = backlog.folder / "live.log"
    live.write_bytes(b"first\n")
    _, consumer = lab.pair("--rate", "160")
    mirrored, archive = backlog.mirrored(consumer, "live.log"), backlog.mirrored(consumer, "large.gz")
    lab.wait_until(lambda: archive.exists() and archive.stat().st_size > MIB, "the archive has begun")
    with live.open("ab") as out:
        out.write(b"second\n")
    lab.wait_until(lambda: mirrored.exists() and mirrored.read_bytes() == b"first\nsecond\n", "the line is there")
    assert archive.stat().st_size < len(plain), "before the archive is through"
    backlog.wait_mirrored(lab, consumer)
