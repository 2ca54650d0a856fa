"""The files of a torture run, and what is known of every byte that was ever in one of them.

A `Life` is one incarnation of one file: from its creation, or a truncation, to its deletion or the next truncation. Its
text is a function of its number alone, in lines that nobody else has, so every byte that turns up anywhere says where it
comes from. Copies made by copytruncate share the text of their original, and say so.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

from torture_plan import NODES, Step

_MAX_FILES = 14  # of a node, that are written to
_MAKE_MORE = ("create", "touch", "rotate", "copytruncate", "symlink")  # beyond so many they delete one
_LETTERS = bytes(random.Random(7).choices(b"abcdefghijklmnopqrstuvwxyz     ", k=8192)).decode()
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
KEY_BYTES = 4


def key_of(text_id: int) -> str:
    """What every line of a text begins with. Neighbours differ early, so that even a few bytes tell their origin."""
    scrambled = text_id * 7_654_321 % len(_DIGITS) ** KEY_BYTES
    out = ""
    for _ in range(KEY_BYTES):
        scrambled, digit = divmod(scrambled, len(_DIGITS))
        out += _DIGITS[digit]
    return out


def line_of(text_id: int, number: int) -> bytes:
    """One line of a text: its key, the number of the line, some words, and a digest of all that."""
    shift = (number * 31 + text_id * 17) % 4096
    length = (number * 7919 + text_id * 104_729) % 180
    start = f"{key_of(text_id)} {number:08d} {_LETTERS[shift : shift + length]} "
    return (start + hashlib.blake2b(start.encode(), digest_size=4).hexdigest() + "\n").encode()


class Text:
    """The endless text of a number, made as far as it is needed."""

    def __init__(self, text_id: int) -> None:
        self.id = text_id
        self._made = bytearray()
        self._lines = 0

    def piece(self, begin: int, end: int) -> bytes:
        while len(self._made) < end:
            self._made += line_of(self.id, self._lines)
            self._lines += 1
        return bytes(self._made[begin:end])

    def whole_lines(self, length: int) -> int:
        """The end of the last line that is whole in so many bytes."""
        return bytes(self.piece(0, length)).rfind(b"\n") + 1

    def rest_of_line(self, at: int) -> int:
        """How many bytes are missing to the end of the line that is open at an offset."""
        if at == 0 or self.piece(at - 1, at) == b"\n":
            return 0
        end = at
        while self.piece(end, end + 1) != b"\n":
            end += 1
        return end + 1 - at


@dataclass
class Mark:
    """At this time (monotonic) the file was so long."""

    at: float
    size: int


@dataclass
class Life:
    """One incarnation. Times are of the monotonic clock."""

    number: int
    node: str
    text: Text
    inode: int
    names: set[Path]  # under which the producer can find it now
    all_names: set[Path] = field(default_factory=set)
    marks: list[Mark] = field(default_factory=list)
    size: int = 0
    ended_at: float | None = None  # no name that the producer looks at is left, or it was truncated
    ended_by: str = ""  # deleted, truncated, moved out
    untaken_since: float | None = None  # from then on no pattern takes any of its names: found only if it was known before
    linked: bool = False  # it had several names
    copy: bool = False  # by copytruncate, of another life with the same text
    fd: int = -1

    @property
    def live(self) -> bool:
        return self.ended_at is None

    def end(self, how: str) -> None:
        if self.live:
            self.ended_at = time.monotonic()
            self.ended_by = how

    def named(self, name: Path) -> None:
        self.names.add(name)
        self.all_names.add(name)
        self.look_at_names()

    def unnamed(self, name: Path) -> None:
        self.names.discard(name)
        self.look_at_names()
        # Under a name that no pattern takes it is looked for in its own folder, and not where other links to it were.
        if self.names and self.untaken_since is not None and (self.linked or all(other.parent != name.parent for other in self.names)):
            self.end("moved out")

    def look_at_names(self) -> None:
        if any(is_taken(name) for name in self.names):
            self.untaken_since = None
        elif self.untaken_since is None:
            self.untaken_since = time.monotonic()


class World:
    """The folders of all nodes, and every life there was."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lives: list[Life] = []
        self._texts: dict[int, Text] = {}
        self._names = 0
        self.bytes_written = 0
        for node in NODES:
            for directory in ("plain", "rotated/deep", "links"):
                (self.of(node) / directory).mkdir(parents=True)
            for directory in ("outside", "targets"):
                (self.folder / "elsewhere" / node / directory).mkdir(parents=True)

    def of(self, node: str) -> Path:
        return self.folder / "src" / node

    def globs(self, node: str) -> list[str]:
        """In one folder rotated names are taken, too, in the other they are found by their inode."""
        return [f"t/plain={self.of(node)}/plain/*.log", f"t/rotated={self.of(node)}/rotated/**/*.log*",
                f"t/links={self.of(node)}/links/*.log"]

    def outside(self, node: str, name: str = "outside") -> Path:
        return self.folder / "elsewhere" / node / name

    def text(self, text_id: int) -> Text:
        return self._texts[text_id]

    def close(self) -> None:
        for life in self.lives:
            self._close(life)

    # what a step does

    def do(self, step: Step) -> str:
        """Returns what was done, in words."""
        many = len(self.live(step.target)) >= _MAX_FILES and step.action in _MAKE_MORE
        operation = getattr(self, "_" + ("delete" if many else step.action.replace("-", "_")))
        return operation(step.target, step.pick, step.amount) or "nothing: there is no such file"

    def finish_lines(self) -> None:
        """Ends the open line of every file, so that sinks of lines can show all of it."""
        for life in self.lives:
            if life.live and life.size > 0:
                self._write(life, life.text.rest_of_line(life.size))

    def live(self, node: str) -> list[Life]:
        return [life for life in self.lives if life.node == node and life.live]

    # operations

    def _append(self, node: str, pick: int, amount: int) -> str:
        life = self._choose(node, pick)
        if life is None:
            return self._create(node, pick, amount)
        self._write(life, amount)
        return f"append {amount} to {self._name(life)}: {life.size}"

    _burst = _append

    def _create(self, node: str, pick: int, amount: int) -> str:
        life = self._open(node, self._new_name(node, pick))
        self._write(life, amount)
        return f"create {self._name(life)} with {amount}"

    def _touch(self, node: str, pick: int, amount: int) -> str:
        return f"create {self._name(self._open(node, self._new_name(node, pick)))} empty"

    def _rotate(self, node: str, pick: int, amount: int) -> str:
        """Renamed beside itself; the writer goes on in the old file, a new one begins at the name."""
        life = self._choose(node, pick, plain=True)
        if life is None:
            return ""
        name = self._log_name(life)
        old = self._give_name(life, self._numbered(name))
        self._write(life, amount % 1000)
        self._write(self._open(node, name), amount)
        return f"rotate {name} to {old}"

    def _rename(self, node: str, pick: int, amount: int) -> str:
        life = self._choose(node, pick, plain=True)
        if life is None:
            return ""
        name = self._log_name(life)
        return f"rename {name} to {self._give_name(life, self._numbered(name))}"

    def _copytruncate(self, node: str, pick: int, amount: int) -> str:
        """As logrotate does it: a copy of what is there, then the file is cut to nothing and written to again."""
        life = self._choose(node, pick, plain=True)
        if life is None or life.size == 0:
            return ""
        name = self._log_name(life)
        # A copy that is taken by a pattern is a file like others; one that is not, is nothing to the producer.
        copy = self._numbered(name) if "rotated" in name.parts else self.outside(node) / f"{name.name}.{self._count()}"
        with copy.open("wb") as file:
            file.write(life.text.piece(0, life.size))
            inode = os.fstat(file.fileno()).st_ino
        if "rotated" in name.parts:
            twin = Life(len(self.lives), node, life.text, inode, set(), size=life.size, copy=True)
            twin.named(copy)
            twin.marks.append(Mark(time.monotonic(), life.size))
            self.lives.append(twin)
        fresh = self._truncate(life)
        self._write(fresh, amount)
        return f"copytruncate {name} to {copy}"

    def _rewrite(self, node: str, pick: int, amount: int) -> str:
        life = self._choose(node, pick)
        if life is None:
            return ""
        fresh = self._truncate(life)
        self._write(fresh, amount)
        return f"rewrite {self._name(fresh)} with {amount}"

    def _delete(self, node: str, pick: int, amount: int) -> str:
        life = self._choose(node, pick, copies=True)
        if life is None:
            return ""
        name = self._unlink_all(life)
        if pick % 3 == 0 and not life.copy:
            self._write(life, amount % 3000)  # by a program that has it open; nobody promises these bytes
        self._close(life)
        return f"delete {name}"

    def _recreate(self, node: str, pick: int, amount: int) -> str:
        """Deleted and made again at once: the file system likes to use the inode again."""
        life = self._choose(node, pick, plain=True)
        if life is None:
            return ""
        name = self._log_name(life)
        self._unlink_all(life)
        self._close(life)
        fresh = self._open(node, name)
        self._write(fresh, amount)
        return f"recreate {name}" + (", with the same inode" if fresh.inode == life.inode else "")

    def _replace(self, node: str, pick: int, amount: int) -> str:
        """Another file takes its name, as editors do it."""
        life = self._choose(node, pick, plain=True)
        if life is None:
            return ""
        name = self._log_name(life)
        prepared = self.outside(node) / f"prepared.{self._count()}"
        fresh = self._open(node, prepared, visible=False)
        self._write(fresh, amount)
        os.rename(prepared, name)
        self._gone(life, name, "deleted")
        fresh.named(name)
        fresh.marks = [Mark(time.monotonic(), fresh.size)]
        fresh.ended_at, fresh.ended_by = None, ""
        return f"replace {name}"

    def _hard_link(self, node: str, pick: int, amount: int) -> str:
        life = self._choose(node, pick, plain=True)
        if life is None:
            return ""
        name = self._new_name(node, pick)
        os.link(self._log_name(life), name)
        life.linked = True
        life.named(name)
        return f"link {name} to {self._name(life)}"

    def _symlink(self, node: str, pick: int, amount: int) -> str:
        """A symbolic link leads to another file now, as with `current.log`."""
        link = self.of(node) / "links" / f"current{pick % 2}.log"
        target = self.outside(node, "targets") / f"t{self._count()}.log"
        fresh = self._open(node, target, visible=False)
        self._write(fresh, amount)
        new = link.with_name(".new")
        new.symlink_to(target)
        os.rename(new, link)
        for life in self.live(node):
            self._gone(life, link, "moved out")
        fresh.named(link)
        fresh.marks = [Mark(time.monotonic(), fresh.size)]
        fresh.ended_at, fresh.ended_by = None, ""
        return f"lead {link} to {target}"

    def _move(self, node: str, pick: int, amount: int) -> str:
        """To another folder that is looked at, under a name that is taken."""
        life = self._choose(node, pick, plain=True)
        if life is None:
            return ""
        return f"move {self._log_name(life)} to {self._give_name(life, self._new_name(node, pick // 7))}"

    def _move_out(self, node: str, pick: int, amount: int) -> str:
        life = self._choose(node, pick, plain=True)
        if life is None or len(life.names) > 1:
            return ""
        name = self._log_name(life)
        target = self.outside(node) / f"{name.name}.{self._count()}"
        os.rename(name, target)
        self._gone(life, name, "moved out")
        self._write(life, amount % 2000)
        return f"move {name} out to {target}"

    # details

    def _choose(self, node: str, pick: int, plain: bool = False, copies: bool = False) -> Life | None:
        """`plain`: one with a name of its own that ends in .log, not reached through a symbolic link."""
        lives = [life for life in self.live(node) if copies or not life.copy]
        if plain:
            lives = [life for life in lives if any(_is_plain(name) for name in life.names)]
        return lives[pick % len(lives)] if lives else None

    def _open(self, node: str, name: Path, visible: bool = True) -> Life:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        return self._begin(node, fd, name, visible)

    def _begin(self, node: str, fd: int, name: Path, visible: bool) -> Life:
        number = len(self.lives)
        text = self._texts.setdefault(number, Text(number))
        life = Life(number, node, text, os.fstat(fd).st_ino, set(), fd=fd)
        if visible:
            life.named(name)
        else:
            life.end("not there yet")
        self.lives.append(life)
        return life

    def _truncate(self, life: Life) -> Life:
        """The same inode under the same names, with nothing in it."""
        os.ftruncate(life.fd, 0)
        life.end("truncated")
        fresh = self._begin(life.node, os.dup(life.fd), next(iter(life.names)), visible=True)
        for name in life.names:
            fresh.named(name)
        life.names = set()
        self._close(life)
        return fresh

    def _write(self, life: Life, amount: int) -> None:
        if amount == 0 or life.fd < 0:
            return
        data = life.text.piece(life.size, life.size + amount)
        view = memoryview(data)
        while view:
            view = view[os.write(life.fd, view) :]
        life.size += amount
        self.bytes_written += amount
        if life.live:
            life.marks.append(Mark(time.monotonic(), life.size))

    def _give_name(self, life: Life, to: Path) -> Path:
        name = self._log_name(life)
        os.rename(name, to)
        life.named(to)
        life.unnamed(name)
        return to

    def _unlink_all(self, life: Life) -> str:
        name = self._name(life)
        for each in sorted(life.names):
            with contextlib.suppress(FileNotFoundError):
                each.unlink()
        life.names = set()
        life.end("deleted")
        return name

    def _gone(self, life: Life, name: Path, how: str) -> None:
        """One name less."""
        if name in life.names:
            life.unnamed(name)
            if not life.names:
                life.end(how)

    def _close(self, life: Life) -> None:
        if life.fd >= 0:
            os.close(life.fd)
            life.fd = -1

    def _count(self) -> int:
        self._names += 1
        return self._names

    def _new_name(self, node: str, pick: int) -> Path:
        folder = ("plain", "rotated", "rotated/deep")[pick % 3]
        return self.of(node) / folder / f"f{self._count()}.log"

    def _numbered(self, name: Path) -> Path:
        return name.with_name(f"{name.name}.{self._count()}")

    def _name(self, life: Life) -> str:
        return f"life {life.number} at {', '.join(str(name) for name in sorted(life.names))}"

    def _log_name(self, life: Life) -> Path:
        return sorted(name for name in life.names if _is_plain(name))[0]


def is_taken(name: Path) -> bool:
    """Whether a pattern of World.globs takes it."""
    return name.suffix == ".log" if "rotated" not in name.parts else ".log" in name.name


def _is_plain(name: Path) -> bool:
    return name.suffix == ".log" and name.parent.name != "links"

