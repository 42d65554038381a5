"""A push that repeats the one before: the same words, as long as the registry has what was pushed, and only then."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from builder.api.repeat import push as noting
from builder.api.repeat import registry as asking
from builder.api.repeat.question import question
from builder.registry.endpoints import Endpoint
from tests.support.builds import Cli, context
from tests.support.registry import FakeRegistry, Faults


class Pushing:
    """An image with two tags in one repository that is pushed again and again."""

    def __init__(self, cli: Cli, registry: FakeRegistry) -> None:
        self.cli = cli
        self.registry = registry
        self.name = f"{registry.host}/team/app"
        self.build()

    def build(self, content: str = "x", platforms: str = "linux/amd64") -> None:
        directory = context(self.cli.root.parent / "context", "FROM scratch\nCOPY a /\nCOPY b /\n", a="a", b=content)
        self.cli.build("--platform", platforms, "-t", f"{self.name}:1", "-t", f"{self.name}:latest", directory)

    def push(self, *arguments: str) -> str:
        done = self.cli.spawn("push", *arguments)
        assert done.status == 0, done.err
        return done.out.decode()

    def answer(self, *arguments: str, **environ: str) -> str | None:
        """What the same command is answered."""
        asked = question(self.cli.arguments("push", *arguments), self.cli.environ | environ)
        assert asked is not None
        answer = asked.answer()
        return answer and answer[0]


@pytest.fixture
def pushing(cli: Cli) -> Iterator[Pushing]:
    # A configuration that was written just now is not believed, and without a locale Python chooses one.
    cli.environ.update(BUILDER_CONFIG="", LC_ALL="C.UTF-8")
    with FakeRegistry() as registry:
        yield Pushing(cli, registry)


@pytest.fixture
def pushed(pushing: Pushing) -> Pushing:
    pushing.push(pushing.name)
    return pushing


@pytest.mark.parametrize(
    "arguments", [["NAME"], ["NAME:1"], ["-q", "NAME", "NAME:1"], ["NAME:1", "NAME"], ["--all-tags", "NAME"]]
)
def test_the_same_words(pushing: Pushing, arguments: list[str]) -> None:
    arguments = [argument.replace("NAME", pushing.name) for argument in arguments]
    first = pushing.push(*arguments)
    answer = pushing.answer(*arguments)
    _note(pushing).unlink()
    assert answer == pushing.push(*arguments)
    assert (answer == first) == ("-q" in arguments)


def test_the_registry_is_asked_for_the_tags_alone(pushed: Pushing) -> None:
    pushed.push(pushed.name, f"{pushed.name}:1")
    pushed.registry.requests.clear()
    assert "Layer already exists" in pushed.push(pushed.name, f"{pushed.name}:1")
    assert pushed.registry.requests == ["HEAD /v2/team/app/manifests/latest", "HEAD /v2/team/app/manifests/1"]


def test_an_index(pushing: Pushing) -> None:
    pushing.build(platforms="linux/amd64,linux/arm64")
    pushing.push(pushing.name)
    answer = pushing.answer(pushing.name)
    assert answer is not None
    assert answer.count("Layer already exists") == 2


def changes() -> dict[str, Callable[[Pushing], object]]:
    """What makes another push of it, or may."""

    def to_another(pushed: Pushing) -> None:
        pushed.registry.repositories["team/app"]["latest"] = ("application/json", b"{}")

    def lose(pushed: Pushing) -> None:
        del pushed.registry.repositories["team/app"]["latest"]

    def restart(pushed: Pushing) -> None:
        pushed.registry.repositories.clear()

    def fault(**faults: object) -> Callable[[Pushing], None]:
        return lambda pushed: setattr(pushed.registry, "faults", Faults(**faults))  # type: ignore[arg-type]

    return {
        "another image in the store": lambda pushed: pushed.build("another"),
        "another image in the registry": to_another,
        "no such tag in the registry": lose,
        "an empty registry": restart,
        "a registry that is not there": lambda pushed: pushed.registry.__exit__(),
        "a registry that wants to know who asks": fault(statuses=[(401, {})]),
        "a registry in trouble": fault(statuses=[(503, {})]),
        "a redirection": fault(statuses=[(307, {"Location": "/elsewhere"})]),
        "no digest": fault(statuses=[(200, {})]),
        "no answer": fault(hang_up=1),
        "a slow registry": fault(silent=2.0),
        "an image that is gone": lambda pushed: pushed.cli("rmi", f"{pushed.name}:latest"),
        "a configuration": lambda pushed: _configure(pushed, "builder/builder.toml").write_text("[limits]\n"),
        "a certificate": lambda pushed: _configure(pushed, f"docker/certs.d/{pushed.registry.host}/x.crt").touch(),
        "an hour": lambda pushed: os.utime(_note(pushed), (time.time() - 3600,) * 2),
        "half a note": lambda pushed: os.truncate(_note(pushed), _note(pushed).stat().st_size // 2),
    }


def _note(pushed: Pushing) -> Path:
    [note] = _notes(pushed.cli)
    return note


def _notes(cli: Cli) -> list[Path]:
    """Without what came of the command lines."""
    return [path for path in (cli.root / "repeats").iterdir() if path.suffix != ".given"]


def _configure(pushed: Pushing, name: str) -> Path:
    """A file of the user's configuration, in a directory that is there."""
    path = Path(pushed.cli.environ["HOME"]) / ".config" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("change", changes())
def test_what_changed_is_pushed(pushed: Pushing, change: str) -> None:
    assert pushed.answer(pushed.name) is not None
    changes()[change](pushed)
    assert pushed.answer(pushed.name) is None


def test_the_registry_has_what_the_answer_says(pushed: Pushing) -> None:
    pushed.build("another")
    pushed.push(pushed.name)
    digest = pushed.cli.entries()[f"{pushed.name}:latest"]["digest"]
    assert digest in pushed.push(pushed.name)
    pushed.registry.repositories["team/app"]["latest"] = ("application/json", b"{}")
    pushed.push(pushed.name)
    assert pushed.registry.repositories["team/app"]["latest"] == pushed.registry.repositories["team/app"][digest]


def test_half_of_an_image_is_not_noted(cli: Cli) -> None:
    """It was pushed without its index, and says so."""
    cli.environ["BUILDER_CONFIG"] = ""
    with FakeRegistry() as registry, FakeRegistry() as other:
        index = registry.add_index("app", "1", registry.add_image("app"), registry.add_image("app", architecture="arm"))
        assert cli("pull", "--platform", "linux/amd64", f"{registry.host}/app:1").status == 0
        cli("tag", f"{registry.host}/app:1", f"{other.host}/app:1")
        for _ in range(2):
            assert f"{index['digest']} -> " in cli.spawn("push", f"{other.host}/app:1").out.decode()
    assert _notes(cli) == []


@pytest.mark.parametrize(
    ("scheme", "host", "environ", "plain"),
    [
        ("http", "127.0.0.1:5000", {}, True),
        ("http", "localhost:5000", {"HTTP_PROXY": "http://proxy:1"}, True),
        ("http", "registry.lan", {}, True),
        ("http", "registry.lan", {"http_proxy": "http://proxy:1"}, False),
        ("http", "registry.lan", {"ALL_PROXY": "http://proxy:1"}, False),
        ("https", "registry.lan", {}, False),
        ("https", "127.0.0.1:443", {}, False),
    ],
)
def test_which_registries_are_noted(scheme: str, host: str, environ: dict[str, str], plain: bool) -> None:
    assert noting._is_plain(Endpoint(scheme, host, host), environ) == plain


@pytest.mark.parametrize(
    "name", ["127.0.0.1:PORT", "localhost:PORT", "[::1]:PORT", "127.0.0.1:PORT:1", "127.0.0.1:x", "[::1]", "."]
)
def test_names_of_registries(name: str) -> None:
    """Where there is none the question is refused, and not answered."""
    with FakeRegistry() as registry:
        digest = registry.add_manifest("app", b'{"mediaType": "a/b"}', "1")
        host = name.replace("PORT", registry.host.rpartition(":")[2])
        noted = [asking.held(host, "/v2/app/manifests/1", "a/b", digest)]
        if name in ("127.0.0.1:PORT", "localhost:PORT"):
            assert asking.has_manifests(noted)
        else:
            with pytest.raises((OSError, ValueError)):
                asking.has_manifests(noted)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", b"x" * 100_000, b"SSH-2.0\r\n\r\n"])
def test_a_server_that_answers_something_else(sent: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(sent)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises((OSError, ValueError)):
            asking.has_manifests([asking.held(f"127.0.0.1:{server.getsockname()[1]}", "/", "a/b", "sha256:0")])
        thread.join()


def test_a_server_that_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes soon, the answer does not."""
    monkeypatch.setattr(asking, "_PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                while True:
                    connection.sendall(b"x")
                    time.sleep(0.05)

        thread = threading.Thread(target=serve)
        thread.start()
        began = time.monotonic()
        with pytest.raises(OSError, match="timed out"):
            asking.has_manifests([asking.held(f"127.0.0.1:{server.getsockname()[1]}", "/", "a/b", "sha256:0")])
        assert time.monotonic() - began < 5
        thread.join()


def test_nothing_noted_is_nothing_known() -> None:
    assert not asking.has_manifests([])
    with pytest.raises(ValueError, match="unpack"):
        asking.has_manifests([b"only a host"])


def test_an_answer_loads_little(pushed: Pushing) -> None:
    watched = (
        "import os, sys\nos._exit = lambda status: print(*sorted(sys.modules))\n"
        "from builder.__main__ import run\nrun()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", watched, *pushed.cli.arguments("push", pushed.name)], env=pushed.cli.environ,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Layer already exists" in done.stdout
    loaded = {*done.stdout.splitlines()[-1].split()}
    assert "builder.api.repeat.registry" in loaded
    assert not {"click", "msgspec", "typing", "re", "enum", "socket", "encodings.idna"} & loaded
