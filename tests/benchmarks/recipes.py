"""What is built: contexts of a given size, how they change between two builds, and what must be in the images.

Files are small and half compressible, as sources are. Everything is made from fixed seeds: each run builds the same.
"""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from tests.benchmarks.bases import Bases
from tests.benchmarks.expected import Expected, File

PER_DIRECTORY = 50


class Recipe(ABC):
    """A context below `directory`, of `scale` times its usual size; `base` is the image that it builds on, if any.
    `edit` changes an input, so that the next build has something to do."""

    def __init__(self, directory: Path, bases: Bases, scale: float) -> None:
        self.directory = directory
        self.bases = bases
        self.base = ""
        self.dockerfiles: Sequence[str] = ("Dockerfile",)
        self.arguments: dict[str, str] = {}
        self.edits = 0
        self._scale = scale
        self._random = random.Random(directory.name)
        self.expected = self.make()

    @abstractmethod
    def make(self) -> Expected:
        """Write the context."""

    def edit(self) -> None:
        """Nothing changes, unless a recipe has something that does."""
        return

    def scaled(self, count: int) -> int:
        return max(10, int(count * self._scale))

    def write(self, path: str, data: bytes | str) -> File:
        content = data.encode() if isinstance(data, str) else data
        place = self.directory / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return File(hashlib.sha256(content).hexdigest())

    def tree(self, top: str, count: int, suffix: str = ".js") -> dict[str, File | None]:
        """So many small files; the first and the last of them."""
        seen: dict[str, File | None] = {}
        for number in range(count):
            noise = self._random.randbytes(self._random.randint(50, 800)).hex()
            path = f"{top}/d{number // PER_DIRECTORY:05d}/f{number:06d}{suffix}"
            file = self.write(path, f"export const part = require('./{number}');\n" * 6 + noise)
            if number in (0, count - 1):
                seen[path] = file
        return seen


class TwelveSteps(Recipe):
    """Twelve instructions of the usual kinds, none of which has anything to do when built again."""

    def make(self) -> Expected:
        self.base = self.bases.small
        seen = self.tree("src", 400)
        steps = (
            f"FROM {self.base}", "ENV A=1 B=2", "WORKDIR /app", "COPY src/d00000 /app/one", "RUN echo 1 > /r1",
            "COPY src /app/src", "RUN echo 2 > /r2", "ARG K=v", "RUN echo $K > /r3", "LABEL a=b",
            "RUN ls -R /app > /r4", 'CMD ["sh"]',
        )  # fmt: skip
        self.write("Dockerfile", "\n".join(steps) + "\n")
        files = {f"app/{path}": file for path, file in seen.items()} | {"r3": _text("v\n")}
        return Expected(files, (7, 8), {"Cmd": ["sh"]})


class ManyFiles(Recipe):
    """A COPY of many small files; an edit changes one of them."""

    def make(self) -> Expected:
        count = self.scaled(30_000)
        seen = self.tree("node_modules", count)
        self._first = min(seen)
        self.write("Dockerfile", "FROM scratch\nCOPY node_modules /app/node_modules\n")
        return Expected({f"app/{path}": file for path, file in seen.items()}, (1, 1), entries=(count, 2 * count))

    def edit(self) -> None:
        self.edits += 1
        self.expected.files[f"app/{self._first}"] = self.write(self._first, f"edit {self.edits}\n" * 5)


class BigFile(Recipe):
    """A COPY of one file of 1 GiB, half of it noise."""

    def make(self) -> Expected:
        digest, text = hashlib.sha256(), (b"All work and no play makes a dull file. " * 2000)[: 1 << 16]
        with open(self.directory / "big", "wb") as file:
            for _ in range(self.scaled(8192)):
                for piece in (self._random.randbytes(1 << 16), text):
                    digest.update(piece)
                    file.write(piece)
        self.write("Dockerfile", "FROM scratch\nCOPY big /big\n")
        return Expected({"big": File(digest.hexdigest())}, (1, 1))


class TrivialCommands(Recipe):
    """Forty RUN steps that do next to nothing."""

    def make(self) -> Expected:
        self.base, count = self.bases.small, self.scaled(40)
        self.write("Dockerfile", f"FROM {self.base}\n" + "".join(f"RUN printf x > /s{n}\n" for n in range(count)))
        return Expected({"s0": _text("x"), f"s{count - 1}": _text("x")}, (count + 1, count + 1))


class BusyStages(Recipe):
    """Six stages, each with a second or two of work for one processor."""

    def make(self) -> Expected:
        self.base, size = self.bases.small, self.scaled(700)
        work = f"dd if=/dev/zero bs=1M count={size} 2>/dev/null | sha256sum | cut -c1-64 > /result"
        stages = [f"FROM {self.base} AS s{n}\nRUN echo {n} > /n && {work}\n" for n in range(6)]
        copies = [f"COPY --from=s{n} /result /out{n}\n" for n in range(6)]
        self.write("Dockerfile", "".join([*stages, "FROM scratch\n", *copies]))
        digest = hashlib.sha256()
        for _ in range(size):
            digest.update(bytes(1 << 20))
        return Expected({f"out{n}": _text(f"{digest.hexdigest()}\n") for n in range(6)}, (6, 6))


class OnDebian(Recipe):
    """Dockerfiles on a Debian base; an edit changes every step."""

    TEXT: ClassVar[Mapping[str, str]]

    def make(self) -> Expected:
        self.base, self.dockerfiles = self.bases.debian, tuple(self.TEXT)
        self.expected = Expected(self.tree("app", 200), (3, 3), skip=1)
        self.edit()
        return self.expected

    def edit(self) -> None:
        self.edits += 1
        file = self.write("app/edit", f"edit {self.edits}\n")
        self.expected.files.update({"app/edit": file, "touched": _text(f"edit {self.edits}\n")})
        self.write_dockerfiles()

    def write_dockerfiles(self) -> None:
        for name, text in self.TEXT.items():
            self.write(name, text.format(base=self.base, edit=self.edits, name=name))


class Application(OnDebian):
    """A command and a small COPY on Debian."""

    TEXT: ClassVar = {"Dockerfile": "FROM {base}\nRUN echo edit {edit} > /touched\nCOPY app /app\n"}


class Metadata(OnDebian):
    """Instructions on Debian that make no layer."""

    TEXT: ClassVar = {"Dockerfile": 'FROM {base}\nENV A={edit}\nLABEL l=m\nEXPOSE 80\nCMD ["/bin/true"]\n'}

    def make(self) -> Expected:
        super().make()
        return Expected({}, (1, 1), {"Cmd": ["/bin/true"]}, skip=1)

    def edit(self) -> None:
        self.edits += 1
        self.write_dockerfiles()


class Pair(OnDebian):
    """Two builds on Debian, each with some work for one processor."""

    TEXT: ClassVar = dict.fromkeys(
        ("first.Dockerfile", "second.Dockerfile"),
        "FROM {base}\nRUN echo edit {edit} > /touched && echo {name} && head -c 300000000 /dev/zero | sha256sum\n"
        "COPY app /app\n",
    )


class ChangedTree(Recipe):
    """A command that changes the modes of half of a large tree and removes the other half; an edit makes it run."""

    def make(self) -> Expected:
        self.base, count = self.bases.small, self.scaled(10_000)
        kept, gone = self.tree("big/kept", count), self.tree("big/gone", count)
        command = "echo $N > /n && rm -rf /big/gone && chmod -R 700 /big/kept"
        self.write("Dockerfile", f"FROM {self.base}\nCOPY big /big\nARG N=0\nRUN {command}\n")
        files = {path: File(file.sha256, 0o700) for path, file in kept.items() if file is not None}
        return Expected({**files, **dict.fromkeys(gone)}, (3, 3))

    def edit(self) -> None:
        self.edits += 1
        self.arguments["N"] = str(self.edits)


class Ignored(Recipe):
    """A context of 100,000 files of which 1 % counts: half are in an ignored directory, the others match a pattern."""

    def make(self) -> Expected:
        count = self.scaled(100_000)
        kept = self.tree("src", count // 100)
        hidden = self.tree("node_modules", count // 2) | self.tree("data", count // 2 - count // 100, ".log")
        self.write(".dockerignore", "node_modules\n**/*.log\n*.md\n!keep.md\n.git\n")
        self.write("Dockerfile", "FROM scratch\nCOPY . /\n")
        return Expected({**kept, **dict.fromkeys(hidden)}, (1, 1), entries=(count // 100, count // 20 + 10))


class Squashed(Recipe):
    """Two copies of which one is removed again."""

    def make(self) -> Expected:
        self.base, count = self.bases.small, self.scaled(4_000)
        gone, kept = self.tree("gone", count), self.tree("kept", count)
        steps = "COPY gone /gone\nCOPY kept /kept\nRUN rm -rf /gone\nRUN echo x > /x\n"
        self.write("Dockerfile", f"FROM {self.base}\n{steps}")
        return Expected({**kept, **dict.fromkeys(gone), "x": _text("x\n")}, (1, 2))


RecipeKind = Callable[[Path, Bases, float], Recipe]


def _text(content: str) -> File:
    return File(hashlib.sha256(content.encode()).hexdigest())
