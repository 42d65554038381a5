"""Build arguments with a meaning of their own: what they ask for, and what they do in a build."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.api.inputs import Inputs
from builder.api.options import BuildOptions
from builder.api.special import NAMES, Special, dated, special_arguments
from builder.dockerfile.parser import parse
from builder.errors import UsageError
from builder.oci.spec import Platform
from builder.plan.locate import Locator
from tests.support.archives import archive
from tests.support.builds import Cli, busybox_context, context, needs_sandbox

TWO = (Platform("linux", "amd64"), Platform("linux", "arm64"))


@pytest.mark.parametrize(
    ("given", "special"),
    [
        ({}, Special()),
        ({"A": "b"}, Special()),
        ({"SOURCE_DATE_EPOCH": "17"}, Special(epoch=17)),
        ({"SOURCE_DATE_EPOCH": "context"}, Special()),
        ({"SOURCE_DATE_EPOCH": "0" * 5000}, Special(epoch=0)),
        ({"BUILDKIT_SANDBOX_HOSTNAME": "there"}, Special(hostname="there")),
        ({"BUILDKIT_CACHE_MOUNT_NS": "mine"}, Special(cache_namespace="mine")),
        ({"BUILDKIT_MULTI_PLATFORM": "1"}, Special(index=True)),
        ({"BUILDKIT_MULTI_PLATFORM": "false"}, Special()),
        ({"BUILDKIT_CONTEXT_KEEP_GIT_DIR": "true"}, Special(keep_git_dir=True)),
        ({"BUILDKIT_CONTEXT_KEEP_GIT_DIR": ""}, Special()),
        (
            {"BUILDKIT_SYNTAX": "dockerfile.v0", "BUILDKIT_INLINE_CACHE": "0", "BUILDKIT_SBOM_SCAN_STAGE": "0"},
            Special(),
        ),
    ],
)
def test_meaning(given: dict[str, str], special: Special) -> None:
    assert special_arguments(BuildOptions(build_args=given)) == special


AN_ARG = "ARG SOURCE_DATE_EPOCH=5\nFROM scratch\n"
OTHERS = "ARG T=9\nARG SOURCE_DATE_EPOCH=$T\nFROM scratch\n"
CONTEXT = "ARG SOURCE_DATE_EPOCH=context\nFROM scratch\n"


@pytest.mark.parametrize(
    ("text", "given", "environ", "epoch"),
    [
        (AN_ARG, {}, {}, 5),
        (AN_ARG, {"SOURCE_DATE_EPOCH": "7"}, {"SOURCE_DATE_EPOCH": "6"}, 7),
        (AN_ARG, {}, {"SOURCE_DATE_EPOCH": "6"}, 6),
        (AN_ARG, {}, {"SOURCE_DATE_EPOCH": ""}, 5),
        (AN_ARG, {"SOURCE_DATE_EPOCH": ""}, {}, None),
        (OTHERS, {}, {}, 9),
        (OTHERS, {"T": "3"}, {}, 3),
        (OTHERS, {"T": ""}, {}, None),
        ("ARG SOURCE_DATE_EPOCH\nFROM scratch\n", {}, {}, None),
        ("FROM scratch\nARG SOURCE_DATE_EPOCH=5\n", {}, {}, None),
        (CONTEXT, {}, {}, 17),
        ("FROM scratch\n", {"SOURCE_DATE_EPOCH": "context"}, {}, 17),
        ("FROM scratch\n", {}, {"SOURCE_DATE_EPOCH": "context"}, 17),
    ],
)
def test_the_time_of_a_build(text: str, given: dict[str, str], environ: dict[str, str], epoch: int | None) -> None:
    """Of the build argument, the environment, and an ARG before the first FROM, the first counts."""
    options = BuildOptions(build_args=given, environ=environ)
    inputs = Inputs("Dockerfile", text.encode(), {}, {}, time=17)
    assert dated(options, inputs, parse(inputs.text, "Dockerfile"), Locator("Dockerfile", text)).epoch == epoch


def test_a_time_that_an_arg_cannot_mean() -> None:
    text = "ARG A\nARG SOURCE_DATE_EPOCH=build\nFROM scratch AS build\n"
    inputs = Inputs("Dockerfile", text.encode(), {}, {})
    with pytest.raises(UsageError, match="'build' is not a number of seconds") as caught:
        dated(BuildOptions(), inputs, parse(inputs.text, "Dockerfile"), Locator("Dockerfile", text))
    assert caught.value.place == "Dockerfile:2"


SHOWN = "FROM scratch\nARG SOURCE_DATE_EPOCH\nLABEL time=${SOURCE_DATE_EPOCH-none}\nCOPY f /\n"


@pytest.mark.parametrize("before", ["", "ARG SOURCE_DATE_EPOCH=context\n"])
@pytest.mark.parametrize(("packed", "shown"), [(True, "1000"), (False, "none")])
def test_the_time_of_the_context(cli: Cli, tmp_path: Path, before: str, packed: bool, shown: str) -> None:
    """The newest file of an archive; a directory has none, and then the argument counts as missing. A stage's ARG gets
    the seconds."""
    given = () if before else ("--build-arg", "SOURCE_DATE_EPOCH=context")
    text = before + SHOWN
    files = (("Dockerfile", {"data": text.encode(), "mtime": 1000}), ("f", {"data": b"f", "mtime": 999}))
    where, stdin = ("-", archive(*files)) if packed else (context(tmp_path / "context", text, f="f"), b"")
    cli.build("-t", "x", *given, where, stdin=stdin)
    config = cli.config("x")
    assert config["config"]["Labels"] == {"time": shown}
    assert (config["created"] == "1970-01-01T00:16:40Z") is packed


def test_the_time_of_an_arg_is_that_of_the_image(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "ARG SOURCE_DATE_EPOCH=1000\n" + SHOWN, f="f")
    cli.build("-t", "x", directory)
    config = cli.config("x")
    assert config["created"] == "1970-01-01T00:16:40Z"
    assert {line["created"] for line in config["history"]} == {config["created"]}
    assert config["config"]["Labels"] == {"time": "1000"}
    assert int(cli.files("x")["f"].mtime) == 1000


@pytest.mark.parametrize(("given", "shown"), [({}, "5"), ({"SOURCE_DATE_EPOCH": "007"}, "7")])
def test_stages_see_the_time_of_the_environment(cli: Cli, tmp_path: Path, given: dict[str, str], shown: str) -> None:
    """As buildx gives it; a build argument that was given wins."""
    arguments = [word for name, value in given.items() for word in ("--build-arg", f"{name}={value}")]
    directory = context(tmp_path / "context", SHOWN, f="f")
    cli.build("-t", "x", *arguments, directory, environ={"SOURCE_DATE_EPOCH": "5"})
    assert cli.config("x")["config"]["Labels"] == {"time": shown}


def test_the_time_may_come_from_the_environment() -> None:
    options = BuildOptions(environ={"SOURCE_DATE_EPOCH": "5", "BUILDKIT_MULTI_PLATFORM": "1"})
    assert special_arguments(options) == Special(epoch=5)
    assert special_arguments(BuildOptions(environ=options.environ, build_args={"SOURCE_DATE_EPOCH": ""})) == Special()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"BUILDKIT_MULTI_PLATFORM": "yes"}, "BUILDKIT_MULTI_PLATFORM=yes is not true or false"),
        ({"BUILDKIT_MULTI_PLATFORM": "0"}, "BUILDKIT_MULTI_PLATFORM=0 forbids the index that 2 platforms need"),
        ({"BUILDKIT_CONTEXT_KEEP_GIT_DIR": "2"}, "is not true or false"),
        ({"BUILDKIT_INLINE_CACHE": "x"}, "is not true or false"),
        ({"BUILDKIT_SANDBOX_HOSTNAME": "x" * 65}, "longer than 64 bytes"),
        ({"SOURCE_DATE_EPOCH": "today"}, "is not a number of seconds"),
        ({"SOURCE_DATE_EPOCH": "²"}, "is not a number of seconds"),
        ({"SOURCE_DATE_EPOCH": "253402300800"}, "is after the year 9999"),
        ({"SOURCE_DATE_EPOCH": "9" * 5000}, "is after the year 9999"),
    ],
)
def test_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        special_arguments(BuildOptions(build_args=given, platforms=TWO))


@pytest.mark.parametrize(
    ("given", "warning"),
    [
        ({"BUILDKIT_SYNTAX": "docker/dockerfile:1"}, "no frontend image is fetched"),
        ({"BUILDKIT_BUILD_NAME": "x"}, "-t names the image"),
        ({"BUILDKIT_SBOM_SCAN_CONTEXT": "true"}, "an SBOM tells of the final image only"),
        ({"BUILDKIT_SBOM_SCAN_STAGE": "a,b"}, "an SBOM tells of the final image only"),
    ],
)
def test_what_cannot_be_done_is_said(given: dict[str, str], warning: str, tmp_path: Path) -> None:
    (text,) = special_arguments(BuildOptions(build_args=given)).warnings
    assert warning in text
    arguments = [part for name, value in given.items() for part in ("--build-arg", f"{name}={value}")]
    done = Cli(tmp_path / "store").build(*arguments, context(tmp_path / "context", "FROM scratch\nLABEL a=b\n"))
    assert done.err.count("WARNING:") == 1
    assert warning in done.err


def test_none_is_called_unused(tmp_path: Path) -> None:
    harmless = {"BUILDKIT_DOCKERFILE_CHECK": "skip=all", "SOURCE_DATE_EPOCH": "0", "BUILDKIT_SANDBOX_HOSTNAME": "h"}
    arguments = [part for name in NAMES for part in ("--build-arg", f"{name}={harmless.get(name, '')}")]
    done = Cli(tmp_path / "store").build(*arguments, context(tmp_path / "context", "FROM scratch\nLABEL a=b\n"))
    assert "WARNING" not in done.err


def test_an_index_for_one_platform(tmp_path: Path) -> None:
    cli, directory = Cli(tmp_path / "store"), context(tmp_path / "context", "FROM scratch\nCOPY f /\n", f="f")
    wanted = ("--build-arg", "BUILDKIT_MULTI_PLATFORM=1", "--platform", "linux/amd64")
    cli.build(*wanted, "-t", "x", "-o", "type=image", "-o", f"type=local,dest={tmp_path}/out", directory)
    index = cli.manifest("x")
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert [entry["platform"] for entry in index["manifests"]] == [{"architecture": "amd64", "os": "linux"}]
    assert (tmp_path / "out/linux_amd64/f").read_text() == "f"


@needs_sandbox
def test_in_commands(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "store")
    directory = busybox_context(
        tmp_path / "context",
        "RUN --mount=type=cache,target=/c cat /proc/sys/kernel/hostname && ls /c && touch /c/mark\n",
    )

    def log(hostname: str, namespace: str) -> str:
        given = (f"BUILDKIT_SANDBOX_HOSTNAME={hostname}", f"BUILDKIT_CACHE_MOUNT_NS={namespace}")
        return cli.build("--no-cache", *(part for text in given for part in ("--build-arg", text)), directory).err

    first = log("one", "a")
    assert " one\n" in first
    assert " mark\n" not in first
    second = log("", "b")
    assert " buildkitsandbox\n" in second
    assert " mark\n" not in second
    assert " mark\n" in log("", "a")
