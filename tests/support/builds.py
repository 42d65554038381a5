"""Builds as people start them, for tests: `builder` as a subprocess or in this process, and contexts with busybox."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

BUSYBOX = "/usr/bin/busybox"
APPLETS = "cat chmod cp date echo env find ln ls mkdir mv rm sed sh sleep sort stat test touch tr true uname wc".split()
PROJECT = Path(__file__).parents[2]
BASE = "FROM scratch AS base\nCOPY base/ /\nENV PATH=/bin\n"
"""The beginning of a Dockerfile whose context `busybox_context` made."""


def obstacle() -> str:
    """Why commands cannot be run in a sandbox here, or nothing."""
    if os.geteuid() != 0:
        return "making namespaces needs root"
    if not os.path.exists(BUSYBOX):
        return "needs /usr/bin/busybox (Debian package busybox-static)"
    with open(BUSYBOX, "rb") as program:
        if b"/ld-" in program.read(4096):
            return "needs a static busybox (Debian package busybox-static)"
    with open("/proc/filesystems") as file:
        return "" if "overlay" in file.read() else "needs overlayfs"


needs_sandbox = pytest.mark.skipif(bool(obstacle()), reason=obstacle())


def busybox_context(directory: Path, dockerfile: str = "") -> Path:
    """A context with a directory `base` that holds busybox; BASE begins a Dockerfile for it."""
    (directory / "base/bin").mkdir(parents=True)
    for name in ("dev", "proc", "sys", "tmp"):  # where the sandbox would have to make them they come into the layer
        (directory / "base" / name).mkdir()
    shutil.copyfile(BUSYBOX, directory / "base/bin/busybox")
    (directory / "base/bin/busybox").chmod(0o755)
    for name in APPLETS:
        (directory / "base/bin" / name).symlink_to("busybox")
    (directory / "Dockerfile").write_text(BASE + dockerfile)
    return directory


def context(directory: Path, dockerfile: str | bytes, **files: str | bytes) -> Path:
    """A context: a Dockerfile and files by name (`__` for a slash)."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in {"Dockerfile": dockerfile, **files}.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return directory


class Done(NamedTuple):
    """How a command ended: its status, standard output (bytes) and standard error (text)."""

    status: int
    out: bytes
    err: str

    def cached(self) -> int:
        """How many steps the log says were cached."""
        return self.err.count(" CACHED\n")


def text(done: Done) -> str:
    """What a command wrote that must do."""
    assert done.status == 0, done.err
    return done.out.decode()


def lines(done: Done) -> list[str]:
    """The lines that a command wrote that must do."""
    return text(done).splitlines()


def ran(done: Done) -> list[str]:
    """The instructions of the steps that were not cached, by the log."""
    names: dict[str, str] = {}
    found = []
    for line in done.err.splitlines():
        number, _, rest = line.partition(" ")
        if rest.startswith("["):
            names[number] = rest.partition("] ")[2]
        elif rest.startswith("DONE") and number in names:
            found.append(names[number])
    return found


class Cli:
    """`builder --root ROOT` with an environment of its own."""

    def __init__(self, root: Path, **environ: str) -> None:
        self.root = root
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(root.parent), "PYTHONPATH": str(PROJECT), **environ}
        if "LD_LIBRARY_PATH" in os.environ:
            self.environ["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        if "BUILDER_CONFIG" not in self.environ:
            (root.parent / "builder.toml").touch()
            self.environ["BUILDER_CONFIG"] = str(root.parent / "builder.toml")

    def arguments(self, *arguments: str | os.PathLike[str]) -> list[str]:
        return ["--root", str(self.root), *(os.fspath(argument) for argument in arguments)]

    def start(self, *arguments: str | os.PathLike[str], **options: Any) -> subprocess.Popen[bytes]:
        """A subprocess whose output is kept in pipes."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
        environ = {**self.environ, **options.pop("environ", {})}
        return subprocess.Popen([sys.executable, "-m", "builder", *self.arguments(*arguments)], env=environ, **options)

    def spawn(
        self, *arguments: str | os.PathLike[str], stdin: bytes = b"", seconds: float = 60, **options: Any
    ) -> Done:
        """Run in a subprocess to its end."""
        with self.start(*arguments, stdin=subprocess.PIPE, **options) as process:
            try:
                out, err = process.communicate(stdin, timeout=seconds)
            finally:
                process.kill()
        return Done(process.returncode, out, err.decode())

    def __call__(
        self, *arguments: str | os.PathLike[str], stdin: bytes = b"", environ: Mapping[str, str] | None = None
    ) -> Done:
        """Run in this process, which is quicker; every way in and out is the real one but the descriptors."""
        from builder.cli.program import main

        outputs = io.BytesIO(), io.BytesIO()
        out, err = (io.TextIOWrapper(stream, write_through=True) for stream in outputs)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["builder", *self.arguments(*arguments)])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            for name in list(os.environ):
                patch.delenv(name)
            for name, value in {**self.environ, **(environ or {})}.items():
                patch.setenv(name, value)
            try:
                main()
            except SystemExit as exit_:
                status = exit_.code
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        assert isinstance(status, int)
        return Done(status, outputs[0].getvalue(), outputs[1].getvalue().decode())

    def build(self, *arguments: str | os.PathLike[str], **options: Any) -> Done:
        """`builder build` in this process, which must do."""
        done = self("build", "--progress", "plain", *arguments, **options)
        assert done.status == 0, done.err
        return done

    # --- the store, read without our own code

    def blob(self, digest: str) -> bytes:
        data = (self.root / "blobs" / digest.replace(":", "/")).read_bytes()
        assert "sha256:" + hashlib.sha256(data).hexdigest() == digest
        return data

    def entries(self) -> dict[str, dict[str, Any]]:
        """The images of the store by name; dangling ones by digest."""
        index = json.loads((self.root / "index.json").read_text())
        return {
            entry.get("annotations", {}).get("io.containerd.image.name", entry["digest"]): entry
            for entry in index["manifests"]
        }

    def manifest(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.blob(self.entries()[full_name(name)]["digest"]))
        return found

    def config(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.blob(self.manifest(name)["config"]["digest"]))
        return found

    def image_id(self, name: str) -> str:
        return str(self.manifest(name)["config"]["digest"])

    def files(self, name: str) -> dict[str, Entry]:
        """The file system of an image."""
        return flatten([self.blob(layer["digest"]) for layer in self.manifest(name)["layers"]])

    def leftovers(self) -> list[str]:
        """What is in tmp/ that should not be, when nothing runs."""
        return sorted(path.name for path in (self.root / "tmp").iterdir() if path.name != "index.lock")


def full_name(name: str) -> str:
    return f"docker.io/library/{name}" if ":" in name else f"docker.io/library/{name}:latest"


class Entry(NamedTuple):
    """A file of a flattened file system. `content` is None for what is no regular file, `link` for what is no link."""

    type: bytes
    mode: int
    uid: int
    gid: int
    mtime: float
    content: bytes | None = None
    link: str | None = None


def flatten(layers: Sequence[bytes]) -> dict[str, Entry]:
    """Apply layers by the image specification's rules, with tarfile and a dictionary: an independent opinion."""
    files: dict[str, Entry] = {}
    for layer in layers:
        fresh: dict[str, Entry] = {}
        removed: list[str] = []
        with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
            for member in archive:
                path = member.name.strip("/").removeprefix("./")
                folder, _, name = path.rpartition("/")
                if name == ".wh..wh..opq":
                    removed.append(f"{folder}/")
                elif name.startswith(".wh."):
                    removed.append("/".join(part for part in (folder, name.removeprefix(".wh.")) if part))
                elif path:
                    fresh[path] = _entry(archive, member, files, fresh)
        for gone in removed:
            inside = gone if gone.endswith("/") else f"{gone}/"
            files = {path: entry for path, entry in files.items() if path != gone and not path.startswith(inside)}
        for path, entry in fresh.items():
            if entry.type != tarfile.DIRTYPE:
                files = {known: other for known, other in files.items() if not known.startswith(f"{path}/")}
            files[path] = entry
    return files


def _entry(
    archive: tarfile.TarFile, member: tarfile.TarInfo, below: dict[str, Entry], fresh: dict[str, Entry]
) -> Entry:
    if member.islnk():
        target = member.linkname.strip("/")
        return fresh.get(target) or below[target]
    content = None
    if member.isreg():
        file = archive.extractfile(member)
        assert file is not None
        content = file.read()
    link = member.linkname if member.issym() else None
    return Entry(member.type, member.mode, member.uid, member.gid, float(member.mtime), content, link)


def tree_of(directory: Path) -> dict[str, tuple[str, int, bytes | str | None]]:
    """A directory's files: kind, mode and content or link target."""
    found: dict[str, tuple[str, int, bytes | str | None]] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        mode = path.lstat().st_mode & 0o7777
        if path.is_symlink():
            found[name] = ("link", 0o777, os.readlink(path))
        elif path.is_dir():
            found[name] = ("directory", mode, None)
        else:
            found[name] = ("file", mode, path.read_bytes())
    return found


@contextlib.contextmanager
def reading(process: subprocess.Popen[bytes]) -> Iterator[Log]:
    """Follow a process's standard error."""
    log = Log(process)
    try:
        yield log
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        log.thread.join()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


class Log:
    """Lines of a process's standard error as they come."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._stream = process.stderr
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._ended = False
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        assert self._stream is not None
        for line in self._stream:
            with self._changed:
                self._lines.append(line.decode("utf-8", "replace"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, text: str, timeout: float = 30) -> str:
        """The first line that contains `text`."""

        def found() -> str | None:
            return next((line for line in self._lines if text in line), None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None or self._ended, timeout)
            line = found()
        assert line is not None, f"{text!r} is not in:\n{self.text}"
        return line

    @property
    def text(self) -> str:
        with self._changed:
            return "".join(self._lines)
