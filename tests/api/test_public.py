"""`import builder`: what it costs, what it takes, and what a build gives."""

from __future__ import annotations

import functools
import http.server
import inspect
import io
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

import builder
from builder.api.options import BuildOptions, BuildResult, SecretSource
from builder.cli.build import command as build_command
from builder.cli.values import build_options
from builder.oci.platform import host_platform
from builder.oci.spec import Platform
from tests.cli.test_remote_contexts import needs_git
from tests.support.builds import PROJECT, Cli
from tests.support.http import serving
from tests.support.together import together

# --- importing


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before))",
        ],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_importing_costs_next_to_nothing() -> None:
    assert modules_after("import builder") - {"__future__"} == {"builder"}


def test_asking_for_build_loads_no_solver() -> None:
    loaded = modules_after("from builder import build")
    assert "builder.api.public" in loaded
    assert not loaded & {"builder.solver", "builder.store", "msgspec", "sqlite3"}


def test_every_public_name_is_there() -> None:
    for name in builder.__all__:
        assert getattr(builder, name) is not None
    assert set(builder.__all__) <= set(dir(builder))
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        builder.biuld  # noqa: B018
    assert (PROJECT / "builder/py.typed").exists()


def test_names_for_type_checkers_are_those_at_run_time() -> None:
    import ast

    tree = ast.parse((PROJECT / "builder/__init__.py").read_text())
    typed = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed - {"TYPE_CHECKING", "Any", "annotations", "import_module"} == set(builder.__all__) - {"__version__"}


# --- options


KEYWORDS = {
    "dockerfile": "file", "agents": "ssh", "no_cache_filter": "no_cache",
}  # fmt: skip
ELSEWHERE = {
    "iidfile": "BuildResult.image_id",
    "metadata_file": "BuildResult",
    "progress": "on_event",
    "quiet": "on_event",
    "call": "the command line",
    "check": "the command line",
    "dry_run": "builder.api.dry_run",
    "rm": "nothing to be kept",
    "force_rm": "nothing to be kept",
    "on_error": "needs a terminal",
    "break_at": "needs a terminal",
}
"""Options of the command line without a keyword, and what there is instead."""


def test_all_options_of_the_command_line_have_keywords() -> None:
    keywords = set(inspect.signature(builder.build).parameters)
    options = {str(parameter.name) for parameter in build_command.params}
    assert set(ELSEWHERE) <= options
    assert {KEYWORDS.get(name, name) for name in options - set(ELSEWHERE)} <= keywords


def options_of(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **keywords: Any) -> BuildOptions:
    """The options that `builder.build` makes of its arguments."""
    found: list[BuildOptions] = []

    def run_build(options: BuildOptions, *_: object) -> BuildResult:
        found.append(options)
        return BuildResult()

    monkeypatch.setattr("builder.api.public.run_build", run_build)
    builder.build(*arguments, **{"root": "/r", "environ": {}, **keywords})
    return found[0]


def test_they_mean_what_the_command_line_means(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = """-t a:1 -t b:2 -f D --build-arg X=1 --build-context lib=/lib --target t --platform linux/amd64,linux/arm64
        --label l=1 --annotation index:k=v --no-cache-filter s --pull --squash=new -o type=tar,dest=x.tar --push --load
        --ssh default=/agent --add-host h:1.2.3.4 --network none --allow network.host --shm-size 1m
        --ulimit nofile=10:20 --memory 1g --cpus 1.5 --jobs 3 --max-size 1MB --max-waste 5% --provenance true
        --sbom true --isolation chroot --cache-from type=local,src=/c --cache-to type=inline --report r.html
        --trace t.json""".split()
    given = build_command.make_context("build", [*texts, "ctx"]).params
    expected = build_options("/r", given, {})
    found = options_of(
        monkeypatch,
        Path("ctx"),
        file=Path("D"),
        tags=["a:1", "b:2"],
        build_args={"X": "1"},
        contexts={"lib": Path("/lib")},
        target="t",
        platforms="linux/amd64,linux/arm64",
        labels={"l": "1"},
        annotations={"index:k": "v"},
        no_cache=["s"],
        pull=True,
        squash="new",
        outputs="type=tar,dest=x.tar",
        push=True,
        load=True,
        ssh={"default": "/agent"},
        hosts={"h": "1.2.3.4"},
        network="none",
        allow=["network.host"],
        shm_size=1 << 20,
        ulimits={"nofile": (10, 20)},
        memory=1 << 30,
        cpus=1.5,
        jobs=3,
        max_size=1_000_000,
        max_waste=0.05,
        provenance=True,
        sbom=True,
        cache_from="type=local,src=/c",
        cache_to=["type=inline"],
        isolation="chroot",
        report="r.html",
        trace=Path("t.json"),
    )
    assert msgspec.structs.asdict(found) == msgspec.structs.asdict(expected)


def test_plain_values(monkeypatch: pytest.MonkeyPatch) -> None:
    found = options_of(monkeypatch)
    expected = build_options("/r", build_command.make_context("build", ["."]).params, {})
    assert msgspec.structs.asdict(found) == msgspec.structs.asdict(expected)
    found = options_of(monkeypatch, tags="a", platforms="arm64", no_cache=True, squash=True, ulimits={"core": 0})
    assert found.tags == ("a",)
    assert found.platforms == (Platform(architecture="arm64", os="linux"),)
    assert options_of(monkeypatch, platforms="local").platforms == (host_platform(),)
    assert (found.no_cache, found.squash, found.limits.ulimits) == (frozenset(), "all", (("core", 0, 0),))


def test_what_is_no_number_of_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(builder.UsageError, match="is no number of processors"):
        options_of(monkeypatch, cpus=float("nan"))


def test_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    found = options_of(monkeypatch, secrets={"a": b"\xff", "b": "täxt", "c": Path("/file")})
    assert found.secrets == {
        "a": SecretSource(value=b"\xff"),
        "b": SecretSource(value="täxt".encode()),
        "c": SecretSource(path="/file"),
    }
    assert "xff" not in repr(found)
    assert "täxt" not in repr(found)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tags": "Not A Name"},
        {"platforms": "linux-arm64"},
        {"squash": "some"},
        {"outputs": "type=none"},
        {"allow": "everything"},
        {"dockerfile": "FROM scratch", "file": "Dockerfile"},
        {"context": "-"},
        {"context": io.BytesIO(b""), "dockerfile": "FROM scratch"},
        {"annotations": {"nowhere:k": "v"}},
        {"isolation": "Chroot"},
        {"network": "bridge"},
    ],
)
def test_what_makes_no_sense_is_refused(root: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises((builder.UsageError, builder.InvalidReference)) as caught:
        builder.build(**{"context": ".", "root": root, **wrong})
    assert caught.value.cause
    assert not root.exists()


# --- builds


def test_a_build_and_its_result(root: Path, directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    events: list[builder.Event] = []
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    result = builder.build(directory, tags=["app:1", "app:2"], root=root, on_event=events.append)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert capfd.readouterr() == ("", "")
    cli = Cli(root)
    assert result.image_id == cli.image_id("app:1")
    assert result.digest == cli.entries()["docker.io/library/app:2"]["digest"]
    assert (result.tags, len(result.platforms), result.root) == (("app:1", "app:2"), 1, str(root))
    [step] = result.steps
    assert (step.name, step.outcome, step.line) == ("[stage-0 1/1] COPY a.txt /", "ran", 2)
    assert step.reason is not None
    assert step.reason.text == "first build"
    assert step.seconds >= 0
    assert [build.build for build in builder.Store(root).builds()] == [result.build]
    done = [event for event in events if isinstance(event, builder.StepDone)]
    assert [event.cached for event in done][:1] == [False]

    again = builder.build(directory, root=root)
    assert [step.outcome for step in again.steps] == ["cached"]
    assert again.image_id == result.image_id


def test_warnings_and_steps_that_are_not_needed(root: Path, directory: Path) -> None:
    text = "FROM scratch AS one\nCOPY a.txt /\nFROM scratch as two\nCOPY a.txt /b\n"
    result = builder.build(directory, dockerfile=text, root=root, build_args={"NOBODY": "1"})
    assert {warning.rule for warning in result.warnings} == {"FromAsCasing", None}
    assert [(step.stage, step.outcome) for step in result.steps] == [("two", "ran"), ("one", "not needed")]


def test_a_context_as_a_stream(root: Path, directory: Path) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(directory, arcname=".")
    result = builder.build(io.BytesIO(archive.getvalue()), root=root)
    assert result.image.config.config.cmd == ["/a.txt"]


def test_outputs_that_are_no_image(root: Path, directory: Path, tmp_path: Path) -> None:
    result = builder.build(directory, outputs=f"type=local,dest={tmp_path}/out", root=root)
    assert (tmp_path / "out/a.txt").read_text() == "one\n"
    assert (result.digest, result.image_id, len(result.steps)) == ("", "", 1)
    with pytest.raises(builder.StoreError, match="made files"):
        result.image  # noqa: B018


def test_errors_have_parts(root: Path, directory: Path) -> None:
    with pytest.raises(builder.DockerfileError) as caught:
        builder.build(directory, dockerfile="FROM scratch\nCOPPY a.txt /\n", root=root)
    error = caught.value
    assert (error.place, error.exit_status) == ("Dockerfile:2", 1)
    assert builder.render(error).startswith("error: Dockerfile:2: unknown instruction: COPPY")
    assert error.remedy


def test_threads_build_side_by_side(root: Path, directory: Path) -> None:
    results: dict[int, builder.BuildResult] = {}

    def work(number: int) -> None:
        text = f"FROM scratch\nCOPY a.txt /{number}\n"
        results[number] = builder.build(directory, dockerfile=text, tags=f"app:{number}", root=root)

    together(*(partial(work, number) for number in range(4)))
    assert len({result.digest for result in results.values()}) == 4
    assert {tag for image in builder.images(root) for tag in image.tags} == {f"app:{number}" for number in range(4)}


# --- the environment


class Proxy(http.server.BaseHTTPRequestHandler):
    """Answers whatever it is asked for, and keeps that."""

    def __init__(self, *arguments: Any, asked: list[str]) -> None:
        self.asked = asked
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(404 if ".git" in self.path else 200)
        self.end_headers()
        self.wfile.write(b"FROM scratch\nLABEL a=b\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    with serving(functools.partial(Proxy, asked=asked)) as url:
        yield url, asked


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"context": "http://far.invalid/c"}, "http://far.invalid/c"),
        ({"dockerfile": "FROM scratch\nADD http://far.invalid/f /\n"}, "http://far.invalid/f"),
        pytest.param({"context": "http://far.invalid/c.git"}, "http://far.invalid/c.git/", marks=needs_git),
        pytest.param(
            {"dockerfile": "FROM scratch\nADD http://far.invalid/a.git /\n"},
            "http://far.invalid/a.git/",
            marks=needs_git,
        ),
    ],
)
def test_a_proxy_of_the_given_environment(
    root: Path, directory: Path, proxy: tuple[str, list[str]], given: dict[str, Any], asked: str
) -> None:
    url, seen = proxy
    arguments = {"context": directory, "root": root, "environ": {"http_proxy": url}, **given}
    if ".git" in asked:
        with pytest.raises(builder.ContextError):
            builder.build(**arguments)
    else:
        builder.build(**arguments)
    assert [path for path in seen if path.startswith(asked)]
