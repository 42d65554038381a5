"""Writes Dockerfiles of every form that the language has, with the choices made by a `random.Random`.

Nearly all are valid; some combinations of quotes, flags and here-documents are not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")

_NAMES = ("A", "B_1", "x", "PATH", "a.b-c")
_VARIABLES = ("A", "B_1", "PATH", "1", "@")
_OPERATORS = ("", "-", ":-", "+", ":+", "?", ":?", "#", "##", "%", "%%")
_MOUNTS = (
    "type=cache,target=/c,sharing=locked", "type=tmpfs,target=/t,size=1m", "type=secret,id=x,env=Y", "type=ssh",
    "target=/s,from=a,ro", 'type=bind,"target=/a,b"', "type=cache,target=$A/${B:-c d}",
)  # fmt: skip
_SHELL_FORMS = ("ls  -l", "a && b", "x > y", "[ -f a ]", "echo \"$A\" '${b}'", "a # b", "${A", "'", "x\\ y", '["a",')
_DOCUMENT_LINES = ("x", "", "\tindented $A", "#!/bin/sh", "${A:-b}", "\\$1 'q", "# no", "FROM z", "a\\", "${")


class Writer:
    """Each method writes one part of a Dockerfile."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._escape = "\\"
        self._makers: dict[str, Callable[[], str]] = {
            "RUN": self._run,
            "CMD": self._command,
            "ENTRYPOINT": self._command,
            "COPY": lambda: self._files("copy"),
            "ADD": lambda: self._files("add"),
            "ENV": self._pairs,
            "LABEL": self._pairs,
            "ARG": self._arguments,
            "EXPOSE": lambda: self._words(self.solid),
            "WORKDIR": self.word,
            "USER": self.word,
            "STOPSIGNAL": self.word,
            "VOLUME": lambda: self._one(self._words(self.solid), json.dumps([self.word(), "/a b"])),
            "SHELL": self._json,
            "HEALTHCHECK": self._health_check,
            "MAINTAINER": lambda: "some  body",
        }

    def dockerfile(self) -> str:
        self._escape = self._one("\\", "`")
        lines = [f"# escape={self._escape}"] if self._escape == "`" or self._maybe() else []
        lines += self._one((), ("# syntax=docker/dockerfile:1",), ("# check=skip=all",), ("# note", "# syntax=x"))
        lines += [f"ARG {self._arguments()}" for _ in range(self._upto(2))]
        for _ in range(1 + self._upto(2)):
            lines += [f"FROM {self._from()}", *(self._instruction() for _ in range(self._upto(5)))]
        end = self._one("\n", "\r\n")
        return "\n".join(lines).replace("\n", end) + self._one("", end)

    # --- choices

    def _one(self, *options: T) -> T:
        return self._random.choice(options)

    def _maybe(self) -> bool:
        return self._random.random() < 0.5

    def _upto(self, most: int) -> int:
        return self._random.randint(0, most)

    # --- words

    def word(self, depth: int = 0) -> str:
        """A word with any operator, quotes and escapes; blanks only in quotes."""
        return "".join(self._part(depth) for _ in range(1 + self._upto(2)))

    def solid(self) -> str:
        """A word without any blank, for where quotes do not hold words together."""
        return self.word().replace(" ", "_")

    def _part(self, depth: int) -> str:
        name = self._one(*_VARIABLES)
        if depth < 3 and self._upto(3) == 0:
            return self._braces(name, depth + 1)
        escaped = self._escape + self._one("$", '"', self._escape, "x")
        return self._one(
            "a", "b.c", "/x", "é", ":", "a-b", "*", "80", "x<y", escaped, f"${name}", "'a'", "'a  $x'", '""', '"a  b"',
            f'"a ${name}"', "\\x" if self._escape == "`" else "`y",
        )  # fmt: skip

    def _braces(self, name: str, depth: int) -> str:
        if self._maybe():
            operator = self._one(*_OPERATORS)
            return f"${{{name}{operator}{self.word(depth) if operator else ''}}}"
        pattern, replacement = self._one("a", "*.c", "$A"), self._one("", "b/c", self.word(depth))
        return f"${{{name}{self._one('/', '//')}{pattern}/{replacement}}}"

    def _words(self, make: Callable[[], str]) -> str:
        return self._one(" ", "  ", "\t").join(make() for _ in range(1 + self._upto(2)))

    def _json(self, *more: str) -> str:
        items = [self._one("a", "a b", "", '"', "\\", "é\n", "\u2028", "$x") for _ in range(1 + self._upto(2))]
        separators = self._one((",", ":"), (" , ", ":"))
        return json.dumps([*items, "z", *more], ensure_ascii=self._maybe(), separators=separators)

    # --- flags

    def _flag(self, name: str, *values: str) -> str:
        """A flag, quoted one way or another, or nothing."""
        if self._maybe():
            return ""
        value = self._one(*values).replace(self._escape, self._escape * 2)
        mark = self._one("", "'", '"')
        for character in mark or " '\"":
            value = value.replace(character, self._escape + character)
        return f"--{name}={mark}{value}{mark} "

    def _switch(self, name: str) -> str:
        return self._one("", f"--{name} ", f"--{name}=true ", f"--{name}=False ")

    # --- instructions

    def _instruction(self) -> str:
        kind = self._one(*self._makers, "ONBUILD")
        comments = self._one("", "", "# note\n", "# note\n# more\n", "#\n", "  # in\n", "\n", "# escape=x\n")
        if kind == "ONBUILD":
            trigger = self._one(*(name for name in self._makers if name != "MAINTAINER"))
            return f"{comments}ONBUILD  {trigger} {self._makers[trigger]()}"
        body = self._makers[kind]()
        gap = self._one(" ", " ", "\t ", f" {self._escape}\n# between\n", f" {self._escape} \n\n  ")
        return f"{comments}{self._one(kind, kind.lower())}{gap}{body}"

    def _from(self) -> str:
        platform = self._flag("platform", "linux/amd64", "$BUILDPLATFORM", self.word())
        return platform + self._one("scratch", self.solid()) + self._one("", " AS one", "  as Two")

    def _command(self) -> str:
        return self._one(self._json(), *_SHELL_FORMS)

    def _run(self) -> str:
        flags = self._flag("mount", *_MOUNTS) + self._flag("mount", *_MOUNTS) + self._flag("network", "none", "default")
        flags += self._flag("security", "insecure", "sandbox") + self._flag("device", "vendor.com/class=x")
        if self._maybe():
            return flags + self._one(self._command(), "-- --x")
        markers, texts = self._heredocs(self._one(("EOF",), ("A", "B"), ("x.1", "x.1")))
        return f"{flags}{self._one('', 'cat ', '3')}{' '.join(markers)}{''.join(texts)}"

    def _files(self, keyword: str) -> str:
        flags = self._flag("chown", self.word()) + self._flag("chmod", "644", "u=rwX,go=r") + self._switch("link")
        flags += self._flag("exclude", "*.o", "a b", "**/$x") + self._flag("exclude", self.word())
        if keyword == "copy":
            flags += self._flag("from", "base", "0") + self._switch("parents")
        else:
            flags += self._flag("checksum", self.word()) + self._switch("keep-git-dir") + self._switch("unpack")
        match self._upto(2):
            case 0:
                return f"{flags}{self._words(self.solid)} {self.solid()}"
            case 1:
                return flags + self._json("/d")
        markers, texts = self._heredocs(self._one(("EOF",), ("a.txt", "B"), ("E", "E")))
        sources = [*markers, *("x" for _ in range(self._upto(1)))]
        if self._maybe():
            sources = ["/y", *sources]
        return f"{flags}{' '.join(sources)} /d/{''.join(texts)}"

    def _heredocs(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """What begins here-documents, and their texts with a line end in front."""
        markers, texts = [], []
        for name in names:
            chomp = self._maybe()
            quoted = self._one("{}", '"{}"', "'{}'", "\\{}").format(name)
            markers.append(f"<<-{quoted}" if chomp else f"<<{quoted}")
            lines = [self._one(*_DOCUMENT_LINES) for _ in range(self._upto(4))]
            end = self._one("", "\t", "\t\t") if chomp else ""
            texts.append("".join(f"\n{line}" for line in [*lines, end + name]))
        return markers, texts

    def _pairs(self) -> str:
        if self._maybe():
            return f"{self._one(*_NAMES)} {self.word()}  {self.word()}"
        return self._words(lambda: self._one(*_NAMES, '"a b"', "$x") + self._one("=", f"={self.word()}"))

    def _arguments(self) -> str:
        return self._words(lambda: self._one(*_NAMES) + self._one("", "=", f"={self.word()}"))

    def _health_check(self) -> str:
        if self._upto(3) == 0:
            return "NONE"
        times = "".join(
            self._flag(name, "30s", "1m30s", "1.5s", "2ms", "0s")
            for name in ("interval", "timeout", "start-period", "start-interval")
        )
        return f"{times}{self._flag('retries', '3', '0')}CMD {self._command()}"
