"""`builder run` and `builder shell` with images that the store has not: what they pull, when, and what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.oci.platform import host_platform
from tests.support.archives import archive
from tests.support.builds import APPLETS, BUSYBOX, PROJECT, Cli, needs_sandbox
from tests.support.registry import FakeRegistry, Faults, digest_of

pytestmark = needs_sandbox

HOST = host_platform().architecture
OTHER = "riscv64" if HOST != "riscv64" else "amd64"


def layer(content: str) -> bytes:
    """Busybox, which answers whatever platform an image says it is for, and a file."""
    with open(BUSYBOX, "rb") as file:
        program = {"data": file.read(), "mode": 0o755}
    links = [(f"bin/{name}", {"type": b"2", "link": "busybox"}) for name in APPLETS]
    return archive(
        *[(name, {}) for name in ("bin", "dev", "proc", "sys", "tmp")],
        ("bin/busybox", program), *links, ("content", {"data": content.encode()}),
    )  # fmt: skip


ONE, TWO = (layer(content) for content in ("one\n", "two\n"))
READ = ("cat", "/content")


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as running:
        running.add_image("team/app", "1", layers=(ONE,), architecture=HOST)
        yield running


@pytest.fixture
def name(registry: FakeRegistry) -> str:
    return f"{registry.host}/team/app:1"


@pytest.fixture
def two(registry: FakeRegistry) -> str:
    """The name of an image for two platforms."""
    members = (
        registry.add_image("team/two", layers=(content,), architecture=architecture)
        for content, architecture in ((ONE, HOST), (TWO, OTHER))
    )
    registry.add_index("team/two", "1", *members)
    return f"{registry.host}/team/two:1"


def of_registry(registry: FakeRegistry) -> list[str]:
    """What it was asked for since the last call."""
    asked, registry.requests[:] = list(registry.requests), []
    return asked


def no_such_image(text: str) -> str:
    return f"error: no such image: {text}\nhelp: 'builder images' lists what there is\n"


# which are pulled


def test_an_image_that_is_not_here(cli: Cli, registry: FakeRegistry, name: str) -> None:
    done = cli.spawn("run", name, *READ)
    assert (done.status, done.out) == (0, b"one\n"), done.err
    digest = digest_of(registry.repositories["team/app"]["1"][1])
    assert done.err.splitlines() == [
        f"Unable to find image '{name}' locally",
        "1: Pulling from team/app",
        f"{digest_of(ONE)[7:19]}: Pull complete",
        f"Digest: {digest}",
        f"Status: Downloaded newer image for {name}",
    ]
    assert list(cli.entries()) == [name]
    of_registry(registry)
    again = cli.spawn("run", name, *READ)
    assert (again.status, again.out, again.err, of_registry(registry)) == (0, b"one\n", "", [])


@pytest.mark.parametrize("option", ["-q", "--quiet", "-q=true"])
def test_a_quiet_pull(cli: Cli, name: str, option: str) -> None:
    done = cli.spawn("run", option, "--pull=missing", name, *READ)
    assert (done.status, done.out, done.err) == (0, b"one\n", "")


def test_a_shell(cli: Cli, name: str) -> None:
    assert cli.spawn("shell", "--pull", "never", name).status == 125
    done = cli.spawn("shell", "-q", name, stdin=b"cat /content\n")
    assert (done.status, done.out, done.err) == (0, b"one\n", "")


def test_a_name_with_a_digest(cli: Cli, registry: FakeRegistry, name: str) -> None:
    digest = digest_of(registry.repositories["team/app"]["1"][1])
    done = cli.spawn("run", f"{name}@{digest}", *READ)
    assert (done.status, done.out) == (0, b"one\n"), done.err
    assert f"{digest}: Pulling from team/app\n" in done.err
    assert of_registry(registry)
    assert cli.spawn("run", f"{name}@{digest}", *READ).out == b"one\n"
    assert of_registry(registry) == []


def test_a_short_name_is_that_of_a_pull(cli: Cli, registry: FakeRegistry) -> None:
    registry.add_image("library/app", "latest", layers=(ONE,), architecture=HOST)
    Path(cli.environ["BUILDER_CONFIG"]).write_text(f'[registry."docker.io"]\nmirrors = ["{registry.host}"]\n')
    done = cli.spawn("run", "app", *READ)
    assert (done.status, done.out) == (0, b"one\n"), done.err
    assert done.err.startswith("Unable to find image 'app:latest' locally\nlatest: Pulling from library/app\n")
    assert list(cli.entries()) == ["docker.io/library/app:latest"]


def test_credentials(cli: Cli, tmp_path: Path) -> None:
    with FakeRegistry(auth="token", users={"me": "secret"}, anonymous_pull=False) as registry:
        registry.add_image("app", "1", layers=(ONE,), architecture=HOST)
        name = f"{registry.host}/app:1"
        refused = cli.spawn("run", name, *READ)
        assert refused.status == 125
        assert f"log in: builder login {registry.host}" in refused.err
        (tmp_path / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": "bWU6c2VjcmV0"}}}))
        done = cli.spawn("run", "-q", name, *READ, environ={"DOCKER_CONFIG": str(tmp_path)})
        assert (done.status, done.out) == (0, b"one\n"), done.err


# platforms


def test_a_variant_that_is_not_here(cli: Cli, registry: FakeRegistry, two: str) -> None:
    assert cli.spawn("run", "-q", two, *READ).out == b"one\n"
    of_registry(registry)
    done = cli.spawn("run", "--platform", f"linux/{OTHER}", two, *READ)
    assert (done.status, done.out) == (0, b"two\n"), done.err
    assert done.err.startswith(f"Unable to find image '{two}' for linux/{OTHER} locally\n")
    assert of_registry(registry)
    for architecture, out in ((HOST, b"one\n"), (OTHER, b"two\n")):
        again = cli.spawn("run", two, *READ, environ={"DOCKER_DEFAULT_PLATFORM": f"linux/{architecture}"})
        assert (again.out, again.err, of_registry(registry)) == (out, "", [])


def test_a_variant_of_which_only_the_description_is_here(cli: Cli, registry: FakeRegistry, two: str) -> None:
    """A plan for another platform fetches no more of a base image."""
    assert cli.spawn("run", "-q", two, *READ).out == b"one\n"
    directory = cli.root.parent / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text(f"FROM {two}\nCOPY Dockerfile /\n")
    assert cli("plan", "--platform", f"linux/{OTHER}", directory).status == 0
    never = cli.spawn("run", "--pull=never", "--platform", f"linux/{OTHER}", two, *READ)
    assert never.status == 125
    assert never.err.startswith(f"error: {two}: layers of the image's variant for linux/{OTHER} are not here\n")
    done = cli.spawn("run", "--platform", f"linux/{OTHER}", two, *READ)
    assert (done.status, done.out) == (0, b"two\n"), done.err


def test_a_platform_that_serves_another(cli: Cli, registry: FakeRegistry) -> None:
    """A pull takes what a platform runs as well; what came is run, whatever else of the image is here."""
    newer, older = (
        registry.add_image("app", layers=(content,), architecture="arm", variant=variant)
        for content, variant in ((ONE, "v7"), (TWO, "v5"))
    )
    registry.add_index("app", "1", newer, older)
    name = f"{registry.host}/app:1"
    assert cli.spawn("run", "-q", "--platform", "linux/arm/v7", name, *READ).out == b"one\n"
    done = cli.spawn("run", "-q", "--platform", "linux/arm/v6", name, *READ)
    assert (done.status, done.out) == (0, b"two\n"), done.err


def test_a_platform_that_there_is_none_for(cli: Cli, two: str) -> None:
    done = cli.spawn("run", "-q", "--platform", "linux/s390x", two, *READ)
    assert done.status == 125
    assert f"error: {two} has no image for linux/s390x; it has: linux/" in done.err


# when


def test_always(cli: Cli, registry: FakeRegistry, name: str) -> None:
    always = ("run", "--pull", "always", name, *READ)
    assert cli.spawn(*always).out == b"one\n"
    of_registry(registry)
    same = cli.spawn(*always)
    assert same.out == b"one\n"
    assert same.err.endswith(f"Status: Image is up to date for {name}\n")
    assert "Unable to find" not in same.err
    assert of_registry(registry) == ["GET /v2/team/app/manifests/1"]
    registry.add_image("team/app", "1", layers=(TWO,), architecture=HOST)
    assert cli.spawn("run", name, *READ).out == b"one\n"
    assert cli.spawn(*always).out == b"two\n"


def test_always_needs_the_registry(cli: Cli, registry: FakeRegistry, name: str) -> None:
    registry.faults = Faults(statuses=[(403, {})])
    assert "--pull=always" not in cli.spawn("run", "--pull=always", "-q", name, *READ).err
    assert cli.spawn("run", "-q", name, *READ).status == 0
    registry.faults = Faults(statuses=[(403, {})])
    done = cli.spawn("run", "--pull=always", "-q", name, *READ)
    assert (done.status, done.out) == (125, b"")
    assert done.err.startswith(f"error: {registry.host} refuses access to {name} (403 Forbidden)")
    assert done.err.endswith("; the image that is here runs without --pull=always\n")


def test_never(cli: Cli, registry: FakeRegistry, name: str, two: str) -> None:
    done = cli.spawn("run", "--pull=never", name, *READ)
    assert (done.status, done.err) == (125, no_such_image(name))
    assert of_registry(registry) == []
    assert cli.spawn("run", "-q", two, *READ).status == 0
    of_registry(registry)
    done = cli.spawn("run", "--pull", "never", "--platform", f"linux/{OTHER}", two, *READ)
    assert (done.status, done.err) == (125, f"error: {two}: the image has no variant for linux/{OTHER} here\n")
    assert of_registry(registry) == []


def test_another_policy(cli: Cli) -> None:
    done = cli.spawn("run", "--pull=newer", "app")
    assert done.status == 125
    assert "'newer' is not one of 'always', 'missing', 'never'" in done.err


# what is refused


@pytest.mark.parametrize("text", ["abc", "0123456789ab", "sha256:0123", "f" * 64, f"sha256:{'f' * 64}"])
def test_what_may_be_an_id_is_not_pulled(cli: Cli, registry: FakeRegistry, text: str) -> None:
    Path(cli.environ["BUILDER_CONFIG"]).write_text(f'[registry."docker.io"]\nmirrors = ["{registry.host}"]\n')
    done = cli.spawn("run", text, *READ)
    assert (done.status, done.err) == (125, no_such_image(text))
    always = cli.spawn("run", "--pull=always", text, *READ)
    assert always.status == 125
    assert always.err.startswith(f"error: {text}: this may be an image ID, and no registry knows those\nhelp: ")
    assert of_registry(registry) == []


def test_a_name_that_could_be_an_id(cli: Cli, registry: FakeRegistry) -> None:
    registry.add_image("library/cafe", "latest", layers=(ONE,), architecture=HOST)
    Path(cli.environ["BUILDER_CONFIG"]).write_text(f'[registry."docker.io"]\nmirrors = ["{registry.host}"]\n')
    assert cli.spawn("run", "-q", "cafe:latest", *READ).out == b"one\n"
    of_registry(registry)
    assert cli.spawn("run", "cafe", *READ).out == b"one\n"
    assert of_registry(registry) == []
    assert cli.spawn("run", "-q", "--pull=always", "cafe", *READ).out == b"one\n"
    assert of_registry(registry) == ["GET /v2/library/cafe/manifests/latest?ns=docker.io"]


@pytest.mark.parametrize("text", ["UPPER", "a//b", "app@3", ""])
def test_names_that_are_none(cli: Cli, text: str) -> None:
    done = cli.spawn("run", text, *READ)
    assert done.status == 125
    assert done.err.startswith(f"error: invalid image reference {text!r}: ")
    assert done.err.count("\n") == 2


def test_what_is_nowhere(cli: Cli, registry: FakeRegistry, name: str) -> None:
    assert cli.spawn("run", "-q", name, *READ).status == 0
    wrong = name.replace("app", "apq")
    done = cli.spawn("run", "-q", wrong, *READ)
    assert (done.status, done.out) == (125, b"")
    assert done.err.startswith(f"error: {wrong} was not found\n")
    assert done.err.endswith(f"help: check the name and the tag; did you mean {name}?\n")
    assert list(cli.entries()) == [name]


def test_nobody_answers(cli: Cli) -> None:
    done = cli.spawn("run", "127.0.0.1:1/app", *READ)
    assert (done.status, done.out) == (125, b"")
    assert done.err.splitlines()[-2:] == [
        "error: 127.0.0.1:1/app:latest: http://127.0.0.1:1 refuses connections",
        "help: check that the registry runs, and its port",
    ]


def test_a_registry_that_lies(cli: Cli, registry: FakeRegistry, name: str) -> None:
    registry.faults = Faults(only=digest_of(ONE), corrupt=True)
    done = cli.spawn("run", "-q", name, *READ)
    assert (done.status, done.out) == (125, b"")
    assert "served a wrong blob" in done.err
    assert cli.entries() == {}


# what it costs


def test_an_image_that_is_here_loads_nothing_of_registries(cli: Cli, name: str) -> None:
    assert cli.spawn("run", "-q", name, *READ).status == 0
    watched = (
        "import os, sys\nos._exit = lambda status: print(*sorted(sys.modules))\n"
        "from builder.__main__ import run\nrun()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", watched, *cli.arguments("run", name, *READ)], env=cli.environ, capture_output=True,
        text=True, cwd=PROJECT, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("one\n")
    loaded = {*done.stdout.splitlines()[-1].split()}
    assert "builder.cli.run" in loaded
    assert not {module for module in loaded if module.startswith("builder.registry")}
    assert not {"builder.api.pulling", "builder.cli.pulling", "builder.cli.transfers", "httpx", "tqdm", "ssl"} & loaded
