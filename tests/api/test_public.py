"""`import builder`: what it costs, what it takes and gives."""

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
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import builder
from builder.api.build import build as core_build
from builder.api.options import BuildOptions, BuildResult, SecretSource
from builder.api.worker import build_apart, call_apart
from builder.cli.build import command as build_command
from builder.cli.values import build_options
from builder.oci.platform import host_platform
from builder.oci.spec import Platform
from builder.progress import ignore
from tests.cli.test_remote_contexts import needs_git
from tests.support.builds import PROJECT, Cli, busybox_context, context, needs_sandbox

COPY = 'FROM scratch\nCOPY a.txt /\nCMD ["/a.txt"]\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return context(tmp_path / "context", COPY, **{"a.txt": "one\n"})


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

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result.digest for result in results.values()}) == 4
    assert {tag for image in builder.images(root) for tag in image.tags} == {f"app:{number}" for number in range(4)}


# --- the store


def test_images(root: Path, directory: Path, tmp_path: Path) -> None:
    assert builder.images(root) == []
    first = builder.build(directory, tags=["app:1", "app:2"], labels={"k": "v"}, root=root)
    [image] = builder.images(root)
    assert image == first.image == builder.Store(root).image("app:2") == builder.Store(root).image(first.image_id[7:19])
    assert (image.id, image.digest, sorted(image.tags)) == (first.image_id, first.digest, ["app:1", "app:2"])
    assert image.labels == {"k": "v"}
    assert image.created is not None
    assert image.created.tzinfo is not None
    assert image.config.rootfs.diff_ids == [layer.diff_id for layer in image.layers]
    assert image.size == sum(layer.size for layer in image.layers) > 0
    assert image.history[-1].created_by == "COPY a.txt / # buildkit"
    assert (image.history[-1].size, image.history[-1].empty) == (image.layers[0].size, False)

    image.tag("other:1")
    assert builder.Store(root).image("other:1").digest == image.digest
    image.save(tmp_path / "app.tar")
    image.save(tmp_path / "app.oci", format="oci")
    image.export(tmp_path / "files.tar")
    image.export(tmp_path / "files")
    assert (tmp_path / "files/a.txt").read_text() == "one\n"
    with tarfile.open(tmp_path / "files.tar") as tar:
        assert tar.getnames() == ["a.txt"]

    with pytest.raises(builder.StoreError, match="several names"):
        image.remove()
    image.remove(force=True)
    assert builder.images(root) == []
    for name in ("app.tar", "app.oci"):
        [loaded] = builder.Store(root).load(tmp_path / name)
        assert (loaded.digest, sorted(loaded.tags)) == (image.digest, ["app:1", "app:2"])
    with open(tmp_path / "app.oci", "rb") as file:
        assert builder.Store(root).load(file)[0].id == image.id


def test_platforms_of_an_image(root: Path, directory: Path) -> None:
    result = builder.build(directory, platforms=["linux/amd64", "linux/arm64"], tags="app", root=root)
    assert result.platforms == ("linux/amd64", "linux/arm64")
    image = result.image
    assert image.platforms == result.platforms
    assert image.variant("linux/arm64").config.architecture == "arm64"
    with pytest.raises(builder.StoreError, match="no variant for linux/s390x"):
        image.variant("linux/s390x")


@pytest.mark.parametrize("form", ["docker-archive", "oci"])
def test_a_variant_is_saved_and_exported_alone(root: Path, directory: Path, tmp_path: Path, form: Any) -> None:
    text = "FROM scratch\nARG TARGETARCH\nCOPY a.txt /$TARGETARCH\n"
    platforms = ["linux/amd64", "linux/arm64"]
    image = builder.build(directory, dockerfile=text, platforms=platforms, tags=["app:1", "app:2"], root=root).image
    for architecture in ("amd64", "arm64"):
        variant = image.variant(f"linux/{architecture}")
        variant.save(tmp_path / "one.tar", format=form)
        [loaded] = builder.Store(tmp_path / f"store-{architecture}").load(tmp_path / "one.tar")
        assert (loaded.platforms, sorted(loaded.tags)) == ((f"linux/{architecture}",), ["app:1", "app:2"])
        assert loaded.config == variant.config
        assert loaded.digest != image.digest
        variant.export(tmp_path / architecture)
        assert os.listdir(tmp_path / architecture) == [architecture]
    image.save(tmp_path / "both.tar", format=form)
    assert builder.Store(tmp_path / "both").load(tmp_path / "both.tar")[0].digest == image.digest


def test_the_limits_of_the_settings(
    root: Path, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder.build(directory, tags="app", root=root).image.save(tmp_path / "app.tar")
    settings = tmp_path / "builder.toml"
    settings.write_text("[limits]\nload_entries = 2\n")
    monkeypatch.setenv("BUILDER_CONFIG", str(settings))
    with pytest.raises(builder.BuilderError) as caught:
        builder.Store(tmp_path / "other").load(tmp_path / "app.tar")
    assert "raise load_entries" in str(caught.value.remedy)
    settings.write_text("[limits]\nload_entries = 99\n")
    assert builder.Store(tmp_path / "other").load(tmp_path / "app.tar")


@pytest.mark.parametrize("call", [lambda s: s.image("none"), lambda s: s.load("/none.tar"), lambda s: s.image("A!")])
def test_what_is_not_there(root: Path, call: Callable[[builder.Store], object]) -> None:
    with pytest.raises(builder.StoreError):
        call(builder.Store(root))


def test_the_default_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BUILDER_ROOT", str(tmp_path / "mine"))
    assert builder.Store().root == str(tmp_path / "mine")
    assert repr(builder.Store("/x")) == "Store('/x')"


@needs_sandbox
def test_run(root: Path, tmp_path: Path) -> None:
    directory = busybox_context(
        tmp_path / "context", "RUN --mount=type=secret,id=s cat /run/secrets/s | wc -c > /size\n"
    )
    image = builder.build(directory, secrets={"s": b"12345"}, root=root).image
    assert image.run(["cat", "/size"]).stdout == "5\n"
    done = image.run(["sh", "-c", "cat; echo $X >&2; exit 3"], input="in", env={"X": "err"})
    assert (done.returncode, done.stdout, done.stderr) == (3, "in", "err\n")
    assert image.run(["cat"], input=b"\xff", text=False).stdout == b"\xff"
    (tmp_path / "file").write_text("host")
    assert image.run(["cat", "/mnt/f"], volumes={"/mnt/f": tmp_path / "file"}).stdout == "host"
    assert image.run(["1:2"], entrypoint="echo").stdout == "1:2\n"
    assert image.run(["sh", "-c", "id -u; id -g; pwd"], user="5:6", workdir="/tmp/new").stdout == "5\n6\n/tmp/new\n"
    interfaces = ["ls", "/sys/class/net"]
    assert image.run(interfaces, network="none").stdout == "lo\n"
    assert image.run(interfaces, network="host").stdout.split() == sorted(os.listdir("/sys/class/net"))
    with pytest.raises(builder.UsageError, match="network='bridge'"):
        image.run(["true"], network="bridge")  # type: ignore[arg-type]
    with pytest.raises(subprocess.CalledProcessError):
        image.run(["sh", "-c", "exit 1"], check=True)
    with pytest.raises(builder.StepFailed, match="not found"):
        image.run(["nonsense"])
    with pytest.raises(subprocess.TimeoutExpired):
        image.run(["sleep", "20"], timeout=0.5)


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
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Proxy, asked=asked)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


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


# --- users that are not root


def test_a_build_in_a_worker(root: Path, directory: Path) -> None:
    """What users that are not root get, as root."""
    options = BuildOptions(context=str(directory), tags=("app:1",), root=str(root), environ={})
    events: list[builder.Event] = []
    result = build_apart(options, events.append, None)
    assert result.image.tags == ("app:1",)
    assert any(isinstance(event, builder.StepDone) for event in events)
    with pytest.raises(builder.ContextError, match="does not exist"):
        build_apart(msgspec.structs.replace(options, context="/none"), ignore, None)
    options = msgspec.structs.replace(options, dockerfile="-")
    with pytest.raises(builder.DockerfileError, match="Dockerfile:1") as caught:
        build_apart(options, ignore, io.BytesIO(b"FORM scratch\n"))
    assert caught.value.remedy


class Breaking(io.RawIOBase):
    """A stream that ends with an error after its first half."""

    def __init__(self, half: bytes, error: Exception) -> None:
        self._half, self._error = half, error

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._half:
            raise self._error
        data, self._half = self._half, b""
        return data


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("error", [ConnectionResetError("reset by peer"), ValueError("cut short")], ids=repr)
def test_half_of_a_stream_is_not_built(root: Path, apart: bool, error: Exception) -> None:
    stream = Breaking(b"FROM scratch\nLABEL a=b\n", error)
    options = BuildOptions(context="-", root=str(root), environ={})
    with pytest.raises(type(error), match=str(error)):
        (build_apart if apart else core_build)(options, ignore, stream)  # type: ignore[arg-type]
    assert builder.images(root) == []


def test_a_worker_that_does_not_read_its_stream(root: Path) -> None:
    options = BuildOptions(context=str(root / "none"), root=str(root), environ={})
    with pytest.raises(builder.ContextError, match="does not exist"):
        build_apart(options, ignore, io.BytesIO(b"x" * (4 << 20)))


def test_a_worker_that_ends_in_the_middle_of_a_message() -> None:
    telling = "__import__('sys')._getframe(1).f_locals['telling']"
    with pytest.raises(builder.BuilderError, match="the worker process ended with status 7") as caught:
        call_apart(eval, f"({telling}.write(__import__('pickle').dumps('x' * 999)[:500]), __import__('os')._exit(7))")
    assert caught.value.remedy


def test_what_a_worker_cannot_send(tmp_path: Path) -> None:
    assert call_apart(os.path.basename, "/a/b") == "b"
    with pytest.raises(FileNotFoundError):
        call_apart(os.listdir, str(tmp_path / "none"))
    with pytest.raises(builder.BuilderError, match="cannot pickle"):
        call_apart(threading.Lock)
    with pytest.raises(builder.BuilderError, match="ended with status 7"):
        call_apart(os._exit, 7)


@needs_sandbox
@pytest.mark.parametrize("apart", [False, True])
def test_an_interrupt_ends_a_build(tmp_path: Path, root: Path, apart: bool) -> None:
    """As a notebook interrupts its kernel: a signal to the process, that Python turns into KeyboardInterrupt."""
    directory = busybox_context(tmp_path / "context", "RUN echo started; sleep 60\n")
    options = BuildOptions(context=str(directory), root=str(root), environ={})

    def on_event(event: builder.Event) -> None:
        if isinstance(event, builder.StepOutput):
            os.kill(os.getpid(), signal.SIGINT)

    build = build_apart if apart else core_build
    started = time.monotonic()
    with pytest.raises((KeyboardInterrupt, builder.Interrupted)):
        build(options, on_event, None)
    assert time.monotonic() - started < 30


@needs_sandbox
def test_an_interrupt_ends_a_build_that_writes_much(tmp_path: Path, root: Path) -> None:
    """The worker is not killed: it ends its steps, and records how the build ended."""
    directory = busybox_context(tmp_path / "context", "RUN yes\n")
    options = BuildOptions(context=str(directory), root=str(root), environ={})

    def on_event(event: builder.Event) -> None:
        if isinstance(event, builder.StepOutput):
            time.sleep(0.5)  # the pipe fills
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        build_apart(options, on_event, None)
    assert time.monotonic() - started < 8
    assert [build.outcome for build in builder.Store(root).builds()] == ["interrupted"]
