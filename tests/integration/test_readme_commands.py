"""Each command in a block of the README is run as it stands there, on a machine of its own where names, ports and paths
are as it says (`tests.support.world`)."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.builds import BUSYBOX, needs_sandbox
from tests.support.certificates import make_certificates
from tests.support.terminal import Program
from tests.support.world import NAMES, PASSWORD, PROJECT, REGISTRY, USER, World
from tests.test_readme import BLOCK, README, blocks

NOT_RUN = {
    "pip install ./tools/builder": "needs a package registry; the gate (.ci/run) installs from a clone",
    "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0": "changes the machine, for all that runs on it",
}
"""Commands that no test runs, and why."""
MARKED = re.compile(r"<!-- (?:set-up|test) -->\n```sh\n.*?^```", re.M | re.S)
"""Blocks that the gate runs as they stand, in a fresh clone (.ci/run)."""
SYNOPSIS = re.compile(r"\[OPTIONS\]")
POD = (
    "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+sys_chroot,+mknod,"
    "+setfcap"
)
"""What a container without privileges may do."""

with open(PROJECT / "testdata/readme/commands.toml", "rb") as file:
    SCENARIOS: dict[str, Any] = tomllib.load(file)
PARTS = {name: SCENARIOS.pop(name).removeprefix("\n") for name in ("base", "stages")}


def plain(line: str) -> str:
    """Without a comment, with single spaces."""
    return " ".join(re.sub(r"(^|\s)#.*", "", line).split())


def lines_in_blocks() -> Iterator[str]:
    """The commands of all blocks but those of the tour (`test_readme.test_the_tour` runs it), the gate's and YAML."""
    text = MARKED.sub("", README.read_text())
    start, end = text.index("## A two-minute tour"), text.index("## Building")
    text = text[:start] + text[end:]
    for language, body in BLOCK.findall(text):
        if language == "console":
            yield from (line[2:] for line in body.splitlines() if line.startswith("$ "))
        if language == "sh":
            yield from body.replace("\\\n", " ").splitlines()
    for line in BLOCK.sub("", text).splitlines():
        if re.match(r"    (\$ |(builder|echo|python|cat) )", line) and not SYNOPSIS.search(line):
            yield line.strip().removeprefix("$ ")


def recipes() -> list[dict[str, Any]]:
    return [yaml.safe_load(body) for body in blocks("yaml")]


def commands_of(recipe: dict[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """The lines of shell that a recipe has, with their variables."""
    if recipe.get("kind") == "Pod":
        return [(shlex.join(container["command"]), {}) for container in recipe["spec"]["containers"]]
    if "jobs" in recipe:
        steps = [step for job in recipe["jobs"].values() for step in job["steps"] if "run" in step]
        return [(step["run"].strip(), step.get("env", {})) for step in steps]
    return [(line, {}) for job in recipe.values() for line in job["script"]]


def test_every_command_is_run() -> None:
    run = {step["line"] for scenario in SCENARIOS.values() for step in scenario["step"]}
    written = [*map(plain, lines_in_blocks())]
    assert len(written) > 25
    for line in filter(None, written):
        assert line in run or line in NOT_RUN, f"nothing runs: {line}"
    of_recipes = [line for recipe in recipes() for line, _ in commands_of(recipe)]
    for line in [*run, *NOT_RUN]:
        assert line in written or line in of_recipes, f"the README has no such command: {line}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("machine")
    certificates = make_certificates(tmp_path_factory.mktemp("certificates"), *NAMES)
    made = World(directory, certificates)
    yield made
    made.close()


def make_project(world: World, name: str, files: dict[str, str]) -> tuple[Path, dict[str, str]]:
    """A directory with these files and busybox; and the variables for a store beside it."""
    project = world.directory / name / "project"
    for path, text in files.items():
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        for part, content in PARTS.items():
            text = text.replace(f"{{{part}}}", content)
        (project / path).write_text(text.removeprefix("\n"))
    shutil.copyfile(BUSYBOX, project / "busybox")
    (project / "busybox").chmod(0o755)
    return project, {"BUILDER_ROOT": str(project.parent / "store"), "USER_NAME": USER, "PASSWORD": PASSWORD}


@needs_sandbox
@pytest.mark.parametrize("name", SCENARIOS)
def test_commands(world: World, name: str) -> None:
    scenario = SCENARIOS[name]
    project, variables = make_project(world, name, scenario["files"])

    def prepare(line: str) -> None:
        done = world.run(line, project, variables)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"

    prepare(scenario.get("before", "true"))
    for step in scenario["step"]:
        prepare(step.get("before", "true"))
        if "typed" in step:
            status, output = on_terminal(world, step, project, variables)
        else:
            done = world.run(step["line"], project, variables)
            status, output = done.returncode, done.stdout + done.stderr
        assert status == step.get("status", 0), f"{step['line']}\n{output}"
        for text in step.get("shows", ()):
            assert text.removeprefix("\n") in output, f"{step['line']}\n{output}"


def on_terminal(world: World, step: dict[str, Any], project: Path, variables: dict[str, str]) -> tuple[int, str]:
    environ = {**world.environ, **variables, "TERM": "xterm"}
    program = Program(world.arguments(step["line"], project), environ, (40, 200))
    try:
        for awaited, text in step["typed"]:
            program.read_until(awaited)
            program.write(text)
        return program.status(), program.output.decode()
    finally:
        program.close()


# --- recipes for CI systems

APP = {"Dockerfile": "{base}{stages}", "src/a": "a", "src/b": "b"}
CI = {
    "GITHUB_SHA": "0123abcd",
    "CI_REGISTRY": REGISTRY,
    "CI_REGISTRY_IMAGE": f"{REGISTRY}/group/app",
    "CI_REGISTRY_USER": USER,
    "CI_REGISTRY_PASSWORD": PASSWORD,
    "CI_COMMIT_SHA": "4567cdef",
}
SECRETS = {"${{ secrets.REGISTRY_TOKEN }}": PASSWORD}


def run_recipe(world: World, recipe: dict[str, Any], project: Path, variables: dict[str, str]) -> str:
    """Run a recipe's commands on a machine that knows no password yet; what they show."""
    assert world.run("rm -rf /root/.docker").returncode == 0
    shown = ""
    for line, given in commands_of(recipe):
        if line in NOT_RUN:
            continue
        own = {key: SECRETS.get(str(value), str(value)) for key, value in given.items()}
        done = world.run(line, project, {**CI, **variables, **own})
        shown += done.stdout + done.stderr
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return shown


@needs_sandbox
@pytest.mark.parametrize(
    ("system", "image"),
    [("jobs", "team/app:0123abcd"), ("build-image", "group/app:4567cdef")],
    ids=["GitHub", "GitLab"],
)
def test_a_recipe_of_a_ci_system(world: World, system: str, image: str) -> None:
    (recipe,) = [recipe for recipe in recipes() if system in recipe and "kind" not in recipe]
    project, _ = make_project(world, f"recipe-{system}", APP)
    for machine, cached in (("first", 0), ("second", 9)):  # a fresh one each time: what is cached came by the registry
        variables = {"BUILDER_ROOT": str(project.parent / machine)}
        shown = run_recipe(world, recipe, project, variables)
        assert shown.count(" CACHED\n") == cached, shown
    done = world.run(f"builder manifest inspect {REGISTRY}/{image}")
    assert done.returncode == 0, done.stderr


@needs_sandbox
def test_a_pod_without_privileges(world: World) -> None:
    (recipe,) = [recipe for recipe in recipes() if recipe.get("kind") == "Pod"]
    project, _ = make_project(world, "pod", APP)
    assert world.run(f"printf %s {PASSWORD} | builder login -u {USER} --password-stdin {REGISTRY}").returncode == 0
    assert world.run(f"cp -a {project}/. /src").returncode == 0
    mounts = [mount["mountPath"] for mount in recipe["spec"]["containers"][0]["volumeMounts"]]
    assert mounts == ["/store", "/src", "/root/.docker"]
    ((line, _),) = commands_of(recipe)
    done = world.run(f"setpriv --bounding-set={POD} --inh-caps={POD} {line}")
    assert done.returncode == 0, done.stderr
    assert world.run(f"builder manifest inspect {REGISTRY}/team/app:1").returncode == 0
