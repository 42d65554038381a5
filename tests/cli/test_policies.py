"""Source policies of builds: what is denied is not built, what is converted is taken instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.builds import Cli, Done, context


@pytest.fixture
def images(cli: Cli, tmp_path: Path) -> None:
    """The images `one` and `two`, with a file of their name."""
    for name in ("one", "two"):
        cli.build("-t", name, context(tmp_path / name, f"FROM scratch\nCOPY {name} /\n", **{name: name}))


def policy(directory: Path, *rules: tuple[str, str, str]) -> dict[str, str]:
    """What a build's environment has for these rules: an action, an identifier, what it is converted to."""
    document: dict[str, Any] = {
        "rules": [
            {"action": action, "selector": {"identifier": identifier}, "updates": {"identifier": becomes}}
            for action, identifier, becomes in rules
        ]
    }
    (directory / "policy.json").write_text(json.dumps(document))
    return {"EXPERIMENTAL_BUILDKIT_SOURCE_POLICY": str(directory / "policy.json")}


ONE, TWO = "docker-image://docker.io/library/one:latest", "docker-image://docker.io/library/two:latest"


def refused(done: Done, *texts: str, status: int = 1) -> None:
    assert done.status == status, done.err
    assert done.err.count("error: ") == 1
    for text in texts:
        assert text in done.err


@pytest.mark.parametrize(
    ("dockerfile", "line"),
    [
        ("FROM one\n", 1),
        ("FROM scratch\nCOPY --from=one /one /\n", 2),
        ("FROM named\n", 1),
        ("FROM two\nRUN --mount=from=one true\n", 2),
    ],
)
@pytest.mark.usefixtures("images")
def test_an_image_that_is_denied(cli: Cli, tmp_path: Path, dockerfile: str, line: int) -> None:
    directory = context(tmp_path / "context", dockerfile)
    environ = policy(tmp_path, ("ALLOW", "*", ""), ("DENY", ONE, ""))
    done = cli("build", "--build-context", "named=docker-image://one", directory, environ=environ)
    refused(done, f"error: Dockerfile:{line}: the source policy denies {ONE}", "rule 2 of", "policy.json: DENY")


@pytest.mark.usefixtures("images")
def test_an_image_that_no_stage_of_the_build_needs(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "FROM one AS unneeded\nFROM two\n")
    cli.build(directory, environ=policy(tmp_path, ("DENY", ONE, "")))


@pytest.mark.usefixtures("images")
def test_an_image_that_is_converted(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "FROM one AS base\nFROM scratch\nCOPY --from=base / /\n")
    cli.build("-t", "plain", directory)
    cli.build("-t", "converted", directory, environ=policy(tmp_path, ("CONVERT", ONE, TWO)))
    assert set(cli.files("plain")) == {"one"}
    assert set(cli.files("converted")) == {"two"}


def test_directories_that_are_denied(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\nCOPY --from=other a /b\n", a="")
    context(tmp_path / "other", "", a="")
    for name in ("context", "dockerfile", "other"):
        done = cli(
            "build", "--build-context", f"other={tmp_path / 'other'}", directory,
            environ=policy(tmp_path, ("DENY", f"local://{name}", "")),
        )  # fmt: skip
        refused(done, f"the source policy denies local://{name}")


def test_a_denied_repetition(cli: Cli, tmp_path: Path) -> None:
    """What is asked for again is not answered from memory once the policy is another."""
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a="")
    environ = policy(tmp_path, ("ALLOW", "*", ""))
    for _ in range(3):
        assert cli.spawn("build", directory, environ=environ).status == 0
    policy(tmp_path, ("DENY", "local://context", ""))
    refused(cli.spawn("build", directory, environ=environ), "denies local://context")


def test_a_policy_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    environ = {"EXPERIMENTAL_BUILDKIT_SOURCE_POLICY": str(tmp_path / "none")}
    done = cli("build", context(tmp_path / "context", "FROM scratch\nLABEL a=b\n"), environ=environ)
    refused(done, "cannot be read", str(tmp_path / "none"), status=2)


def test_a_policy_in_rego(cli: Cli, tmp_path: Path) -> None:
    """As buildx does it: beside the Dockerfile without being asked for, and not where it is disabled."""
    directory = context(
        tmp_path / "context", "FROM scratch\nCOPY a /\n", a="", other__Dockerfile="FROM scratch\nCOPY a /\n"
    )
    cli.build(directory)
    (directory / "Dockerfile.rego").write_text("package docker\n")
    refused(
        cli("build", directory), f"{directory}/Dockerfile.rego: the Dockerfile has a policy", "--policy disabled=true"
    )
    cli.build("--policy", "disabled=true", directory)
    assert cli("graph", directory).status == 0
    cli.build("-f", directory / "other/Dockerfile", directory)
    refused(cli("build", "--policy", "filename=x.rego", directory), "--policy filename=x.rego")
    refused(cli("build", "--policy", "disabled=maybe", directory), "neither true nor false", status=2)


@pytest.mark.parametrize(("given", "denied"), [(("1",), True), (("false",), False), (("1", "disabled"), False)])
def test_the_default_policy_of_buildx(cli: Cli, tmp_path: Path, given: tuple[str, ...], denied: bool) -> None:
    """It wants signatures of a few images by tag, which are not looked at."""
    named = "docker/dockerfile:1"
    cli.build("-t", named, context(tmp_path / "named", "FROM scratch\nLABEL a=b\n"))
    directory = context(tmp_path / "context", f"FROM {named}\nLABEL c=d\n")
    more = ["--policy", "disabled=true"] if len(given) > 1 else []
    done = cli("build", *more, directory, environ={"BUILDX_DEFAULT_POLICY": given[0]})
    assert ("denies docker-image://docker.io/docker/dockerfile:1" in done.err, done.status) == (denied, int(denied))
