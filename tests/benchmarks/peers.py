"""Other builders, each with a root of its own below the place of work; nothing of the machine's own daemons is used."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.benchmarks.builders import Builder, Ours, Request, Unavailable, common_options, first_line
from tests.benchmarks.machine import remove_tree, unmount_below
from tests.benchmarks.measure import Command, Failed


def find(*names: str) -> str:
    """The path of the first of these programs that is installed. Raises Unavailable."""
    for name in names:
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if found:
            return found
    raise Unavailable(f"{' or '.join(names)} is not installed")


class Daemon:
    """A background process that is started when needed, and ended by its process id."""

    def __init__(self, command: Command, environ: Mapping[str, str], log: Path, ready: Callable[[], bool]) -> None:
        self._command = command
        self._environ = environ
        self._log = log
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start it and wait until it answers. Raises Failed."""
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environ, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise Failed(f"{self._command[0]} does not start: {self._log.read_text()[-500:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ask it to end, and kill it if it does not."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class WithDaemon(Builder):
    """A builder whose client needs a daemon, which is started with each new store."""

    daemon: Daemon

    def daemons(self) -> list[int]:
        return [self.daemon.pid] if self.daemon.pid else []

    def stop(self) -> None:
        self.daemon.stop()
        unmount_below(self.root)

    def wipe(self) -> None:
        super().wipe()
        self.daemon.start()


class Docker(WithDaemon):
    """dockerd with its embedded BuildKit (Debian: docker.io)."""

    name = "docker"

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        server, state = find("dockerd"), work / "docker-state"
        self._version = first_line([server, "--version"])
        self._client = [_client_of(self._version), "--host", f"unix://{work}/docker.sock"]
        self.environ = {**self.environ, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"}
        (work / "docker.json").write_text("{}")
        self.daemon = Daemon(
            [
                *(server, "--config-file", f"{work}/docker.json", "--host", f"unix://{work}/docker.sock"),
                *("--data-root", str(self.root), "--exec-root", str(state), "--pidfile", f"{work}/docker.pid"),
                *("--iptables=false", "--ip6tables=false", "--bridge=none", "--log-level", "error", "--experimental"),
            ],
            self.environ,
            work / "docker.log",
            lambda: subprocess.run([*self._client, "version"], capture_output=True, env=self.environ).returncode == 0,
        )
        self._state = state

    @property
    def version(self) -> str:
        return f"{self._version}, embedded BuildKit"

    def stop(self) -> None:
        super().stop()
        remove_tree(self._state)

    def build(self, request: Request) -> list[Command]:
        if request.output in ("gzip", "zstd"):
            raise Unavailable("'docker save' does not compress")
        command = [*self._client, "build", "--network", "host", *common_options(request), str(request.context)]
        if request.output == "store":
            return [command]
        return [command, [*self._client, "save", "--output", str(request.archive), request.tag]]

    def push(self, request: Request) -> list[Command]:
        return [[*self._client, "push", request.tag]]


def _client_of(version: str) -> str:
    """A docker client as old as the daemon: a newer one may refuse to talk to it. Raises Unavailable."""
    number = re.search(r"\d+\.\d+", version)
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        client = os.path.join(directory, "docker")
        if number and os.access(client, os.X_OK) and f"version {number[0]}" in first_line([client, "--version"]):
            return client
    raise Unavailable(f"there is no docker client for {version}")


class Buildah(Builder):
    """buildah with runc or crun, its layers cached."""

    name = "buildah"

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self._program, self._runtime = find("buildah"), find("runc", "crun")
        self._state = work / "buildah-state"
        self._command = [self._program, "--root", str(self.root), "--runroot", str(self._state)]
        self._command += ["--storage-driver", "overlay"]

    @property
    def version(self) -> str:
        return f"{first_line([self._program, '--version'])}, {Path(self._runtime).name}, overlay"

    def stop(self) -> None:
        unmount_below(self.root)

    def wipe(self) -> None:
        super().wipe()
        remove_tree(self._state)

    def build(self, request: Request) -> list[Command]:
        jobs = str(len(os.sched_getaffinity(0)))
        command = [*self._command, "build", "--layers", "--tls-verify=false", "--jobs", jobs, "--network", "host"]
        command += ["--isolation", "oci", "--runtime", self._runtime, *common_options(request)]
        command.append(str(request.context))
        if request.output == "store":
            return [command]
        asked = ["--compression-format", request.output] if request.output in ("gzip", "zstd") else []
        kind = "docker-archive" if request.output == "uncompressed" else "oci-archive"  # the latter compresses always
        return [command, [*self._command, "push", *asked, request.tag, f"{kind}:{request.archive}"]]

    def push(self, request: Request) -> list[Command]:
        return [[*self._command, "push", "--tls-verify=false", request.tag]]


class BuildKit(WithDaemon):
    """buildkitd and buildctl."""

    name = "buildkit"

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        server, runtime = find("buildkitd"), find("runc", "crun", "buildkit-runc")
        address = f"unix://{work}/buildkit.sock"
        self._client = [find("buildctl"), "--addr", address]
        (work / "buildkit.toml").touch()
        self.daemon = Daemon(
            [
                *(server, "--config", f"{work}/buildkit.toml", "--root", str(self.root), "--addr", address),
                *(f"--oci-worker-binary={runtime}", "--containerd-worker=false"),
            ],
            self.environ,
            work / "buildkit.log",
            lambda: subprocess.run([*self._client, "debug", "workers"], capture_output=True).returncode == 0,
        )

    @property
    def version(self) -> str:
        return first_line([self._client[0], "--version"])

    def build(self, request: Request) -> list[Command]:
        asked = "" if request.output == "archive" else f",compression={request.output}"
        output = [] if request.output == "store" else ["--output", f"type=oci,dest={request.archive}{asked}"]
        return [[*self._solve(request), *output]]

    def push(self, request: Request) -> list[Command]:
        # a push alone there is not: this is a build whose steps are cached
        output = f"type=image,name={request.tag},push=true,registry.insecure=true"
        return [[*self._solve(request), "--output", output]]

    def _solve(self, request: Request) -> list[str]:
        if request.squash:
            raise Unavailable("has no squash")
        command = [*self._client, "build", "--progress", "plain", "--frontend", "dockerfile.v0"]
        command += ["--local", f"context={request.context}", "--local", f"dockerfile={request.context}"]
        command += ["--opt", f"filename={request.dockerfile}"]
        for name, value in request.arguments.items():
            command += ["--opt", f"build-arg:{name}={value}"]
        return command


KINDS: Sequence[type[Builder]] = (Ours, Docker, Buildah, BuildKit)


def installed(work: Path, names: Sequence[str]) -> tuple[list[Builder], dict[str, str]]:
    """Those that can be measured here, all if no `names` are given; and why others cannot. Raises ValueError."""
    unknown = set(names) - {kind.name for kind in KINDS}
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))} is none of: {', '.join(kind.name for kind in KINDS)}")
    found: list[Builder] = []
    absent: dict[str, str] = {}
    for kind in KINDS:
        if names and kind.name not in names:
            continue
        try:
            found.append(kind(work))
        except Unavailable as reason:
            absent[kind.name] = str(reason)
    return found, absent


def stop_all(builders: Sequence[Builder]) -> None:
    """End everything that was started."""
    for builder in builders:
        with contextlib.suppress(Failed, OSError):
            builder.stop()
