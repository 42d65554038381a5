"""Where a build's Dockerfile and contexts come from."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from builder.api.inputs import Inputs, load_inputs
from builder.errors import BuilderError, ContextError, DockerfileError, OfflineError, UsageError
from builder.filesystem.tree import FileTree
from builder.plan.options import ContextKind
from builder.store.store import Store
from tests.support.archives import archive
from tests.support.http import serving

TEXT = b"FROM scratch\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def load(store: Store, tmp_path: Path) -> Any:
    """load_inputs with its defaults, in a scratch directory."""
    (tmp_path / "scratch").mkdir()

    def run(
        context: str | Path, dockerfile: str = "", stdin: bytes = b"", *, offline: bool = False, **named: str
    ) -> Inputs:
        scratch = str(tmp_path / "scratch")
        return load_inputs(store, str(context), dockerfile, named, scratch, io.BytesIO(stdin), offline=offline)

    return run


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "context" / "sub").mkdir(parents=True)
    (tmp_path / "context" / "f").write_text("f")
    (tmp_path / "context" / "sub" / "g").write_text("g")
    (tmp_path / "context" / "Dockerfile").write_bytes(TEXT)
    return tmp_path / "context"


def names(tree: FileTree, path: str = "") -> list[str]:
    return [name for name, _ in tree.scan(path)]


def main(inputs: Inputs) -> FileTree:
    return inputs.openers[""]()


def test_a_directory(load: Any, context: Path) -> None:
    inputs = load(context)
    assert (inputs.name, inputs.text) == ("Dockerfile", TEXT)
    assert names(main(inputs)) == ["Dockerfile", "f", "sub"]
    assert inputs.rules() is None
    assert inputs.kinds == {}


def test_names_of_the_dockerfile(load: Any, context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (context / "Dockerfile").unlink()
    with pytest.raises(DockerfileError, match="no Dockerfile in the build context") as caught:
        load(context)
    assert "-f" in (caught.value.remedy or "")
    for name in ("Containerfile", "dockerfile", "Dockerfile"):
        (context / name).write_text(name)
        assert load(context).text == name.encode()
    (context / "sub" / "Other").write_text("inside")
    assert load(context, "sub/Other").text == b"inside"  # below the context, as nothing is here
    monkeypatch.chdir(context / "sub")
    assert load(context, "Other").text == b"inside"
    assert load(context, str(context / "sub" / "Other")).name == "Other"


@pytest.mark.parametrize(("given", "cause"), [("nope", "no such Dockerfile"), ("sub", "no such Dockerfile")])
def test_a_dockerfile_that_is_not_there(load: Any, context: Path, given: str, cause: str) -> None:
    with pytest.raises(DockerfileError, match=cause) as caught:
        load(context, given)
    assert caught.value.place == given
    with pytest.raises(DockerfileError, match="is a directory"):
        load(context, str(context / "sub"))


def test_contexts_that_are_none(load: Any, context: Path) -> None:
    with pytest.raises(ContextError, match="does not exist"):
        load(context / "nope")
    with pytest.raises(ContextError, match="is not a directory"):
        load(context / "f")
    with pytest.raises(ContextError):
        load("docker-image://busybox")


def test_an_ignore_file(load: Any, context: Path) -> None:
    (context / ".dockerignore").write_text("f\nsub/*\n!sub/g\n")
    inputs = load(context)
    assert names(main(inputs)) == [".dockerignore", "Dockerfile", "sub"]
    assert inputs.rules() is not None
    (context / "Dockerfile.dockerignore").write_text("sub")
    assert names(main(load(context))) == [".dockerignore", "Dockerfile", "Dockerfile.dockerignore", "f"]
    (context / "Dockerfile.dockerignore").write_text("a[")
    with pytest.raises(ContextError, match=r"a\["):
        main(load(context))


def test_an_ignore_file_beside_a_containerfile(load: Any, context: Path) -> None:
    (context / "Dockerfile").rename(context / "Containerfile")
    (context / ".containerignore").write_text("f\n")
    assert names(main(load(context))) == [".containerignore", "Containerfile", "sub"]


def test_compiled_rules_are_remembered(load: Any, context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (context / ".dockerignore").write_text("f\n")
    rules = load(context).rules()
    monkeypatch.setattr("builder.context.ignore.compile_rules", lambda *_: pytest.fail("compiled again"))
    assert load(context).rules() == rules


def test_a_dockerfile_on_standard_input(load: Any, context: Path) -> None:
    inputs = load(context, "-", b"FROM other\n")
    assert (inputs.name, inputs.text) == ("Dockerfile", b"FROM other\n")
    assert "f" in names(main(inputs))


def test_a_dockerfile_that_can_be_read_once(load: Any, context: Path, tmp_path: Path) -> None:
    """`-f <(…)`, of which a shell makes a pipe."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writing = threading.Thread(target=fifo.write_text, args=("FROM other\n",))
    writing.start()
    inputs = load(context, str(fifo))
    writing.join()
    assert (inputs.name, inputs.text) == ("Dockerfile", b"FROM other\n")
    assert "f" in names(main(inputs))


def test_a_lone_dockerfile_as_the_context(load: Any) -> None:
    inputs = load("-", stdin=TEXT)
    assert inputs.text == TEXT
    assert names(main(inputs)) == []
    with pytest.raises(ContextError, match="nothing was given"):
        load("-", stdin=b"")
    with pytest.raises(UsageError, match="both the Dockerfile and the context"):
        load("-", "-")


def test_an_archive_as_the_context(load: Any) -> None:
    data = archive(
        ("Dockerfile", {"data": TEXT}), ("d/f", {"data": b"f", "owner": (3, 4)}), (".dockerignore", {"data": b"x\n"}),
        ("x", {"data": b"x"}), ("sub/Other", {"data": b"FROM other\n"}),
    )  # fmt: skip
    inputs = load("-", stdin=data)
    tree = main(inputs)
    assert inputs.text == TEXT
    assert names(tree) == [".dockerignore", "Dockerfile", "d", "sub", "x"]  # whoever packed it chose the files
    assert inputs.rules() is None
    info = tree.lstat("d/f")
    assert info is not None
    assert (info.uid, info.gid) == (3, 4)  # an archive's owners count, a directory's do not
    assert load("-", "sub/Other", stdin=data).text == b"FROM other\n"


SYM = b"2"
HOSTILE: dict[str, list[tuple[str, Any]]] = {
    "a link out": [("Dockerfile", {"type": SYM, "link": "../../../secret"})],
    "an absolute link": [("Dockerfile", {"type": SYM, "link": "SECRET"})],
    "a directory that leads out": [("d", {"type": SYM, "link": "../../.."})],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_dockerfile_outside_of_an_archive_is_read(load: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("root:x")
    entries = [
        (path, {**spec, "link": spec["link"].replace("SECRET", str(tmp_path / "secret"))})
        for path, spec in HOSTILE[name]
    ]
    given = "d/secret" if name == "a directory that leads out" else ""
    for dockerfile in (given, "../../secret", str(tmp_path / "secret")):
        with pytest.raises(BuilderError) as caught:
            load("-", dockerfile, stdin=archive(*entries))
        assert "root:x" not in str(caught.value)


def test_a_dockerfile_that_is_too_large(load: Any, context: Path) -> None:
    os.truncate(context / "Dockerfile", (16 << 20) + 1)
    with pytest.raises(DockerfileError, match="larger than 16 MiB"):
        load(context)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serves the directory `www`."""
    (tmp_path / "www").mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    with serving(partial(Handler, directory=str(tmp_path / "www"))) as url:
        yield url


def test_contexts_from_urls(load: Any, tmp_path: Path, server: str) -> None:
    (tmp_path / "www" / "Dockerfile").write_bytes(TEXT)
    (tmp_path / "www" / "x.tar").write_bytes(archive(("Dockerfile", {"data": TEXT}), ("f", {"data": b"f"})))
    assert load(f"{server}/Dockerfile").text == TEXT
    assert names(main(load(f"{server}/x.tar"))) == ["Dockerfile", "f"]
    with pytest.raises(ContextError):
        load(f"{server}/missing")


@pytest.fixture
def packed(tmp_path: Path, server: str) -> str:
    """The URL of an archive with a Dockerfile and another; beside it there is a third, `There`."""
    entries = (("Dockerfile", {"data": TEXT}), ("sub/Other", {"data": b"FROM other\n"}))
    (tmp_path / "www" / "x.tar").write_bytes(archive(*entries))
    (tmp_path / "www" / "There").write_bytes(b"FROM there\n")
    return f"{server}/x.tar"


def test_the_dockerfile_of_a_remote_context_may_be_local(load: Any, context: Path, tmp_path: Path, packed: str) -> None:
    """With an absolute path, or on standard input (buildx: loadInputs)."""
    local = tmp_path / "Local"
    local.write_bytes(b"FROM local\n")
    inputs = load(packed, str(local))
    assert (inputs.name, inputs.text) == ("Local", b"FROM local\n")
    assert names(main(inputs)) == ["Dockerfile", "sub"]
    assert load(packed, "-", b"FROM piped\n").text == b"FROM piped\n"
    assert load(packed, "sub/Other").text == b"FROM other\n"
    for dockerfile in ("/sub/Other", "../sub/Other"):
        with pytest.raises(DockerfileError, match="no such Dockerfile"):
            load(packed, dockerfile)


def test_a_dockerfile_at_a_url(load: Any, context: Path, packed: str) -> None:
    url = packed.replace("x.tar", "There")
    for given, stdin in ((context, b""), (packed, b""), ("-", archive(("f", {"data": b"f"})))):
        inputs = load(given, url, stdin)
        assert (inputs.name, inputs.text) == ("Dockerfile", b"FROM there\n")
    (context / "There.dockerignore").write_text("f\n")
    assert load(context, url).rules() is None
    with pytest.raises(ContextError, match="404") as caught:
        load(context, url.replace("http://", "http://me:hunter2@") + "fore")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(OfflineError, match="this Dockerfile must be fetched") as offline:
        load(context, url.replace("http://", "http://me:hunter2@"), offline=True)
    assert offline.value.place == url.replace("http://", "http://xxxxx@")


def test_two_dockerfiles(load: Any, tmp_path: Path, packed: str) -> None:
    """What came instead of a context is the Dockerfile: another one is refused where buildx or BuildKit refuse it."""
    url = packed.replace("x.tar", "There")
    local = tmp_path / "Local"
    local.write_bytes(TEXT)
    for dockerfile in ("Other", str(local), url):
        with pytest.raises(UsageError, match="standard input is a Dockerfile, and -f names another"):
            load("-", dockerfile, TEXT)
    for dockerfile in ("-", str(local), url):
        with pytest.raises(UsageError, match=r"There is a Dockerfile, and -f names another"):
            load(url, dockerfile)
    assert load(url, "There").text == b"FROM there\n"


@pytest.mark.parametrize("name", ["x.tar", "Dockerfile"])
def test_a_named_context_at_a_url_is_one_file(load: Any, context: Path, tmp_path: Path, server: str, name: str) -> None:
    """As in BuildKit, whatever is there: `llb.HTTP(url, Filename("context"))`."""
    served = tmp_path / "www" / name
    served.write_bytes(archive(("f", {"data": b"f"})) if name == "x.tar" else TEXT)
    os.utime(served, (17, 17))
    tree = load(context, files=f"{server}/{name}").openers["files"]()
    assert names(tree) == ["context"]
    info = tree.lstat("context")
    assert info is not None
    assert (info.mode, info.size, info.mtime_ns) == (0o600, served.stat().st_size, 17_000_000_000)


def test_an_ignore_file_in_an_archive_from_a_url_hides_nothing(load: Any, tmp_path: Path, server: str) -> None:
    entries = (("Dockerfile", {"data": TEXT}), (".dockerignore", {"data": b"f\n"}), ("f", {"data": b"f"}))
    (tmp_path / "www" / "x.tar").write_bytes(archive(*entries))
    inputs = load(f"{server}/x.tar")
    assert names(main(inputs)) == [".dockerignore", "Dockerfile", "f"]
    assert inputs.rules() is None


def test_named_contexts(load: Any, context: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("x")
    (tmp_path / "other" / "y").write_text("y")
    (tmp_path / "other" / ".dockerignore").write_text("y\n")
    inputs = load(
        context,
        other=str(tmp_path / "other"),
        image="docker-image://busybox",
        empty="docker-image://scratch",
        layout=f"oci-layout://{tmp_path}/layout:tag",
        stage="target:build",
        **{"alpine:latest": "docker-image://alpine:3.20", "Upper": str(tmp_path / "other")},
    )
    assert inputs.kinds == {
        "other": ContextKind(),
        "image": ContextKind(reference="docker.io/library/busybox:latest"),
        "empty": ContextKind(reference="scratch"),
        "layout": ContextKind(reference="tag", layout=f"{tmp_path}/layout"),
        "stage": ContextKind(stage="build"),
        "alpine": ContextKind(reference="docker.io/library/alpine:3.20"),
        "Upper": ContextKind(),
    }
    assert sorted(inputs.openers) == ["", "Upper", "other"]
    assert names(inputs.openers["other"]()) == [".dockerignore", "x"]


@pytest.mark.parametrize(
    "value", ["", "-", "/no/such/directory", "floppy://x", "docker-image://A", "oci-layout://", "target:"]
)
def test_named_contexts_that_are_none(load: Any, context: Path, value: str) -> None:
    with pytest.raises(BuilderError):
        load(context, name=value)
