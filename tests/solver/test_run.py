"""RUN up to the sandbox: found in the cache, made once, and refused without what it requires."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import msgspec
import pytest

from builder.errors import StepFailed
from builder.plan.steps import (
    BindMount,
    CacheMount,
    CopyFiles,
    FromContext,
    FromNode,
    RunNode,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from builder.solver.cache import Made
from builder.solver.commands import step_command
from builder.solver.environment import Environment
from builder.solver.inline import MemoryTree
from builder.solver.mounts import Mounting
from builder.solver.run import run
from builder.solver.select import select
from builder.solver.trace import Trace
from builder.solver.users import ExecUser
from builder.store.store import Store
from tests.solver.support import HOST, OLD, base_layer, environment, node, run_copy, write
from tests.solver.test_staging import FILE
from tests.support.archives import archive
from tests.support.builds import BUSYBOX, PROJECT, Cli, busybox_context, context, needs_sandbox
from tests.support.images import put_image
from tests.support.together import together

STEP = RunNode(label="RUN x", stage="s", platform=HOST, parent=0, argv=("x",), env=())


def _run_in_process(root: str, layer: str, log: str, meeting: Barrier) -> None:
    from builder.solver import execute

    def made(environment: Environment, node: RunNode, *_: object) -> Made:
        with open(log, "a") as file:
            file.write("run\n")
        time.sleep(0.3)  # time for the others to ask, too
        return Made(layer, 1.0)

    execute.execute = made  # type: ignore[assignment]
    environ, _ = environment(Store(root))
    meeting.wait(60)
    run(environ, STEP, (layer,), {}, Trace("1", "here"))


def test_identical_steps_run_once_among_threads_and_processes(tmp_path: Path, store: Store) -> None:
    layer = base_layer(store, write(tmp_path / "a", {"f": "f"}))
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    arguments = (store.root, layer, str(log), context.Barrier(3))
    together(processes=[partial(_run_in_process, *arguments)] * 3, method="fork")
    assert log.read_text() == "run\n"


@pytest.fixture
def runs(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that are executed; each makes the same layer."""
    from builder.solver import execute

    layer = base_layer(store, write(tmp_path / "made", {"made": "made"}))
    seen: list[str] = []
    lock = threading.Lock()

    def made(_: Environment, step: RunNode, *rest: object) -> Made:
        with lock:
            seen.append(step.argv[0])
        return Made(layer, 1.0)

    monkeypatch.setattr(execute, "execute", made)
    return seen


def test_a_command_is_found_again(store: Store, runs: list[str]) -> None:
    environ, _ = environment(store)
    first = run(environ, STEP, ("a",), {}, Trace("1", "here"))
    again = run(environ, STEP, ("a",), {}, Trace("2", "elsewhere"))
    assert again == msgspec.structs.replace(first, cached=True)
    assert runs == ["x"]
    run(environ, STEP, ("b",), {}, Trace("1", "here"))
    run(environ, msgspec.structs.replace(STEP, ignore_cache=True), ("a",), {}, Trace("1", "here"))
    assert runs == ["x"] * 3


def test_a_mounted_context_counts_by_its_content(store: Store, tmp_path: Path, runs: list[str]) -> None:
    context = write(tmp_path / "context", {"a": "1", "b": "1"})
    environ, _ = environment(store, context)
    step = msgspec.structs.replace(STEP, mounts=(BindMount(target="/m", tree=FromContext(""), source="/a"),))
    run(environ, step, (), {}, Trace("1", "here"))
    (context / "b").write_text("2")
    os.utime(context / "a", (1, 1))
    run(environ, step, (), {}, Trace("1", "here"))
    assert len(runs) == 1
    (context / "a").write_text("2")
    run(environ, step, (), {}, Trace("1", "here"))
    assert len(runs) == 2


def test_a_mounted_stage_counts_by_its_content(store: Store, tmp_path: Path, runs: list[str]) -> None:
    """At the same place also with other times, as what is copied from a stage does."""
    environ, _ = environment(store)

    def stage(name: str, out: str, time: int = OLD, mode: int = 0o755) -> str:
        root = write(tmp_path / name, {"out/f": out, "other": name})
        (root / "out").chmod(mode)
        os.utime(root / "out/f", (time, time))
        return base_layer(store, root)

    step = msgspec.structs.replace(STEP, mounts=(BindMount(target="/m", tree=FromNode(0), source="/out"),))

    def ran(layer: str, place: str = "here", **fields: Any) -> int:
        run(environ, msgspec.structs.replace(step, **fields), (), {0: (layer,)}, Trace("1", place))
        return len(runs)

    assert ran(stage("1", "f")) == 1
    assert ran(other := stage("2", "f", OLD - 9)) == 1
    assert ran(other) == 1  # by its layers now
    assert ran(other, "elsewhere") == 2
    assert ran(stage("3", "g")) == 3
    assert ran(stage("4", "f", mode=0o700)) == 4
    assert ran(stage("5", "f"), ignore_cache=True) == 5


def test_what_a_mount_lacks_is_told_by_whoever_mounts_it(store: Store, tmp_path: Path, runs: list[str]) -> None:
    environ, _ = environment(store)
    layer = base_layer(store, write(tmp_path / "a", {"f": "f"}))
    step = msgspec.structs.replace(STEP, mounts=(BindMount(target="/m", tree=FromNode(0), source="/none"),))
    run(environ, step, (), {0: (layer,)}, Trace("1", "here"))
    assert runs == ["x"]


def test_the_source_of_a_mount_is_no_pattern(store: Store, tmp_path: Path, runs: list[str]) -> None:
    context = write(tmp_path / "context", {"app/[slug]/a": "1", "app/s/a": "1", "app/[ab]": "1", "app/a": "1"})
    (context / "app/*").symlink_to("[slug]")
    environ, _ = environment(store, context)
    mounts = tuple(BindMount("/m", FromContext(""), source) for source in ("/app/[slug]", "/app/[ab]", "/app/*/a"))
    step = msgspec.structs.replace(STEP, mounts=mounts)
    run(environ, step, (), {}, Trace("1", "here"))
    for name in ("app/s/a", "app/a"):
        (context / name).write_text("2")
        run(environ, step, (), {}, Trace("1", "here"))
    assert len(runs) == 1
    for number, name in enumerate(("app/[slug]/a", "app/[ab]"), 2):
        (context / name).write_text("2")
        run(environ, step, (), {}, Trace("1", "here"))
        assert len(runs) == number
    missing = msgspec.structs.replace(STEP, mounts=(BindMount("/m", FromContext(""), "/app/[s]"),))
    with pytest.raises(StepFailed, match=r"/app/\[s\] was not found"):
        run(environ, missing, (), {}, Trace("1", "here"))


@needs_sandbox
def test_a_mount_whose_source_looks_like_a_pattern(cli: Cli, tmp_path: Path) -> None:
    line = "RUN --mount=source=app/[slug],target=/m --mount=source=app/[ab],target=/f cat /m/a /f > /out\n"
    directory = busybox_context(tmp_path / "context", line)
    write(directory, {"app/[slug]/a": "1", "app/s/a": "2", "app/[ab]": "3", "app/a": "4"})
    cli.build("-t", "x", directory)
    assert cli.files("x")["out"].content == b"13"


@pytest.mark.parametrize(
    ("mount", "cause"),
    [
        (SecretMount(secret="s", target="/s", required=True), "the secret 's' is required"),
        (SshMount(agent="default", target=None, required=True), "the ssh agent 'default' is required"),
    ],
)
def test_what_is_required_is_asked_for_even_when_cached(store: Store, runs: list[str], mount: Any, cause: str) -> None:
    step = msgspec.structs.replace(STEP, mounts=(mount,))
    given, _ = environment(store)
    given.secrets, given.agents = {"s": lambda: b"x"}, {"default": "/agent"}
    run(given, step, (), {}, Trace("1", "here"))
    without, _ = environment(store)
    with pytest.raises(StepFailed, match=cause) as caught:
        run(without, step, (), {}, Trace("1", "here"))
    assert caught.value.remedy
    assert len(runs) == 1


# --- mounts


@pytest.fixture
def mounting(store: Store, tmp_path: Path) -> Any:
    """Makes the mounts of a step, with the locks that it holds."""

    def make(held: ExitStack, roots: dict[int, tuple[str, ...]] | None = None) -> Mounting:
        environ, _ = environment(store)
        environ.secrets = {"s": lambda: b"secret"}
        scratch = held.enter_context(store.scratch())
        return Mounting(environ, roots or {}, {}, scratch, held)

    return make


def test_secrets_and_temporary_files(mounting: Any) -> None:
    with ExitStack() as held:
        made = mounting(held)
        (secret,) = made.mounts(SecretMount(secret="s", target="/s", variable="S", mode=0o440, uid=3))
        assert (secret.target, secret.content, secret.mode, secret.uid) == ("/s", b"secret", 0o440, 3)
        assert list(made.mounts(SecretMount(secret="none", target="/s", variable="NONE"))) == []
        assert list(made.mounts(SecretMount(secret="none", target="/s", variable="HOME"))) == []
        assert list(made.mounts(SshMount(agent="none", target=None))) == []
        (tmpfs,) = made.mounts(TmpfsMount(target="/t", size=5))
        assert (tmpfs.target, tmpfs.size, tmpfs.read_only) == ("/t", 5, False)
        assert made.variables == {"S": "secret", "NONE": ""}  # as in BuildKit


def test_secrets_hide_proxies_and_those_the_environment(store: Store, mounting: Any) -> None:
    step = msgspec.structs.replace(
        STEP,
        env=(("HTTP_PROXY", "of ENV"), ("S", "of ENV"), ("A", "of ENV")),
        proxies=(("HTTP_PROXY", "given"), ("S", "given")),
        mounts=(SecretMount(secret="s", target=None, variable="S"),),
    )
    with ExitStack() as held:
        environ, _ = environment(store)
        command = step_command(environ, step, ExecUser(), (), ("upper", "work"), mounting(held))
    assert command.environment == ("HTTP_PROXY=given", "S=secret", "A=of ENV", "HOME=/")


def test_a_cache_begins_with_files_and_is_kept(store: Store, mounting: Any, tmp_path: Path) -> None:
    layer = base_layer(store, write(tmp_path / "seed", {"d/f": "seed", "other": "x"}))
    planned = CacheMount(target="/c", cache="k", tree=FromNode(0), source="/d")
    with ExitStack() as held:
        (mount,) = mounting(held, {0: (layer,)}).mounts(planned)
        data = Path(mount.source)
        assert [path.name for path in data.iterdir()] == ["f"]
        (data / "new").write_text("kept")
    with ExitStack() as held:
        (again,) = mounting(held, {0: (layer,)}).mounts(planned)
        assert sorted(path.name for path in Path(again.source).iterdir()) == ["f", "new"]
        (other,) = mounting(held).mounts(CacheMount(target="/c", cache="another"))
        assert other.source != again.source


@pytest.mark.skipif(os.geteuid() != 0, reason="giving caches an owner needs root")
@pytest.mark.parametrize(
    ("planned", "names", "owned"),
    [
        (CacheMount("/c", "k"), [], (0o755, 0, 0)),
        (CacheMount("/c", "k", mode=0o1770, uid=3, gid=4), [], (0o770, 3, 4)),
        (CacheMount("/c", "k", tree=FromNode(0)), ["d", "other"], (0o755, 0, 0)),
        (CacheMount("/c", "k", tree=FromNode(0), uid=3), [], (0o755, 3, 0)),
        (CacheMount("/c", "k", tree=FromNode(0), source="/d"), ["f"], (0o750, 5, 6)),
        (CacheMount("/c", "k", tree=FromNode(0), source="/d", mode=0o700, uid=3), ["f"], (0o750, 5, 6)),
    ],
)
def test_owner_and_mode_of_a_cache(
    store: Store, mounting: Any, tmp_path: Path, planned: CacheMount, names: list[str], owned: tuple[int, int, int]
) -> None:
    """As in BuildKit: either those given, of an empty directory, or those of the directory that it starts from."""
    seed = write(tmp_path / "seed", {"d/f": "seed", "other": "x"})
    (seed / "d").chmod(0o750)
    environ, _ = environment(store, seed)
    layer = run_copy(environ, node("/", link=True, chown="5:6")).diff_id
    with ExitStack() as held:
        (mount,) = mounting(held, {0: (layer,)}).mounts(planned)
        found = os.stat(mount.source)
        assert sorted(os.listdir(mount.source)) == names
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == owned


def test_a_cache_begins_with_files_whose_path_is_no_pattern(store: Store, mounting: Any, tmp_path: Path) -> None:
    layer = base_layer(store, write(tmp_path / "seed", {"[d]/f": "seed", "d/g": "x"}))
    with ExitStack() as held:
        planned = CacheMount(target="/c", cache="k", tree=FromNode(0), source="/[d]")
        (mount,) = mounting(held, {0: (layer,)}).mounts(planned)
        assert os.listdir(mount.source) == ["f"]


def test_sharing_of_caches(mounting: Any) -> None:
    def source(held: ExitStack, sharing: str) -> str:
        (mount,) = mounting(held).mounts(CacheMount(target="/c", cache="k", sharing=sharing))
        return str(mount.source)

    with ExitStack() as one, ExitStack() as two:
        first = source(one, "private")
        assert source(two, "private") != first
    with ExitStack() as one, ExitStack() as two:
        assert source(one, "shared") == source(two, "shared")
        waiting = threading.Thread(target=lambda: source(ExitStack(), "locked"), daemon=True)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
    waiting.join(10)
    assert not waiting.is_alive()


AGAIN_AND_AGAIN = """
import sys, time
from contextlib import ExitStack
from builder.plan.steps import CacheMount
from builder.solver.mounts import Mounting
from builder.store.store import Store
from tests.solver.support import environment
root, sharing = sys.argv[1:]
environ, _ = environment(Store(root))
for turn in range(12):
    with ExitStack() as held:
        Mounting(environ, {}, {}, "", held).claim([CacheMount(target="/c", cache="k", sharing=sharing)])
        print(turn, flush=True)
        time.sleep(0.3)
print("end", flush=True)
"""


@pytest.mark.parametrize("sharing", ["locked", "shared"])
def test_who_waits_for_a_cache_gets_it_next(store: Store, mounting: Any, sharing: str) -> None:
    """Although a build that has it claims it for its next command at once."""
    command = [sys.executable, "-c", AGAIN_AND_AGAIN, store.root, sharing]
    planned = CacheMount(target="/c", cache="k", sharing="locked")
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(PROJECT)}, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"0\n"
            with ExitStack() as held:
                mounting(held).claim([planned])
                other.send_signal(signal.SIGSTOP)
                os.set_blocking(other.stdout.fileno(), False)
                assert (other.stdout.read() or b"").split() in ([], [b"1"])
        finally:
            other.kill()


def test_a_private_cache_waits_for_nobody(mounting: Any) -> None:
    locked, private = (CacheMount(target="/c", cache="k", sharing=sharing) for sharing in ("locked", "private"))
    with ExitStack() as one, ExitStack() as two, ExitStack() as three:
        mounting(one).claim([locked])
        waiting = threading.Thread(target=mounting(two).claim, args=([locked],), daemon=True)
        waiting.start()
        (mount,) = mounting(three).mounts(private)
        assert waiting.is_alive()
        assert mount.source.endswith(".1/data")
        one.close()
        waiting.join(10)
        assert not waiting.is_alive()


def test_commands_with_several_caches_do_not_wait_for_each_other(
    mounting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever order they are written in, they are taken in one; and each once, as what asks for most of it."""
    taken: list[tuple[str, int]] = []

    def hold(path: str, mode: int) -> int:
        taken.append((path, mode))
        return os.open(os.devnull, os.O_RDONLY)

    monkeypatch.setattr("builder.solver.mounts.hold", hold)
    caches = [CacheMount(target="/c", cache=name, sharing="shared") for name in "abcd"]
    for planned in (caches, caches[::-1]):
        with ExitStack() as held:
            mounting(held).claim(planned)
    assert taken[:4] == taken[4:] == sorted(taken[:4])
    taken.clear()
    with ExitStack() as held:
        mounting(held).claim([caches[0], msgspec.structs.replace(caches[0], sharing="locked"), caches[0]])
    assert [mode for _, mode in taken] == [fcntl.LOCK_EX | fcntl.LOCK_NB]


def test_many_who_begin_a_cache_share_one(mounting: Any) -> None:
    found: list[str] = []

    def work() -> None:
        with ExitStack() as held:
            (mount,) = mounting(held).mounts(CacheMount(target="/c", cache="k"))
            (Path(mount.source) / threading.current_thread().name).write_text("")
            found.append(mount.source)

    together(*[work] * 8)
    assert len(set(found)) == 1
    assert len(os.listdir(found[0])) == 8


@pytest.mark.parametrize("name", ["plain", "a*b", "[x]", "a?", "back\\slash", "[[]", "*"])
def test_a_path_that_is_no_pattern(name: str) -> None:
    tree = MemoryTree({name: (FILE, b"x"), "axb": (FILE, b"y"), "x": (FILE, b"z")})
    (match,) = select(tree, CopyFiles(tree=FromContext(""), path=name, literal=True), ())
    assert match.path == name


@needs_sandbox
def test_a_step_knows_its_own_host(cli: Cli, tmp_path: Path) -> None:
    """As sudo and others ask for it."""
    lines = 'RUN sed -n "s/^127.0.0.1.*localhost //p" /etc/hosts > /names; uname -n >> /names\n'
    directory = busybox_context(tmp_path / "context", lines)
    cli.build("-o", tmp_path / "out", directory)
    assert (tmp_path / "out/names").read_text() == 2 * "buildkitsandbox\n"


@needs_sandbox
def test_what_a_step_left_as_it_was_is_in_no_other_image(cli: Cli, tmp_path: Path) -> None:
    """Both steps give the layer that is empty; the first has a copy of its base's file in its directory."""
    stage = "FROM base AS {0}\nCOPY {0} /etc/x\n{1}\nRUN cat /etc/x > /out\n"
    dockerfile = stage.format("one", "RUN chmod 644 /etc/x; mkdir /etc/d; rmdir /etc/d")
    dockerfile += stage.format("two", "COPY --from=one /out /first\nRUN true")
    dockerfile += "FROM scratch\nCOPY --from=one /out /one\nCOPY --from=two /out /two\n"
    directory = busybox_context(tmp_path / "context", dockerfile)
    for name in ("one", "two"):
        (directory / name).write_text(name)
        (directory / name).chmod(0o644)
    cli.build("-o", tmp_path / "out", directory)
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"one": "one", "two": "two"}


@needs_sandbox
def test_a_new_name_of_a_file_stays_a_link_to_it(cli: Cli, tmp_path: Path) -> None:
    """Also for the steps that follow, though in the layer it is a file of its own, as with BuildKit."""
    lines = "COPY x /etc/x\nRUN ln /etc/x /etc/y\nRUN [ /etc/x -ef /etc/y ]\n"
    directory = busybox_context(tmp_path / "context", lines)
    (directory / "x").write_text("x")
    cli.build("-t", "x", directory)
    snapshots = cli.root / "snapshots"
    assert [path.name for path in snapshots.glob("*-*/fs/etc/*") if path.stat().st_nlink == 2] == ["x", "y"]
    assert cli("fsck", "--deep").err.count("damage") == 0


@needs_sandbox
def test_a_step_sees_nothing_below_an_opaque_root(cli: Cli, tmp_path: Path) -> None:
    """Neither in its root nor in what it mounts, as what is copied from there."""
    busybox = Path(BUSYBOX).read_bytes()
    shell = [("bin/", {}), *((f"bin/{name}", {"data": busybox, "mode": 0o755}) for name in ("sh", "ls"))]
    layers = archive(("old", {"data": b""})), archive(*shell, (".wh..wh..opq", {"data": b""}), ("new", {"data": b""}))
    put_image(cli.root, "base:1", layers, Env=["PATH=/bin"])
    lines = "FROM base:1 AS one\nRUN --mount=from=base:1,target=/mnt ls / /mnt > /bin/seen\n"
    lines += "FROM scratch\nCOPY --from=one / /\n"
    cli.build("-o", tmp_path / "out", context(tmp_path / "context", lines))
    assert "old" not in (tmp_path / "out/bin/seen").read_text().split()
    assert sorted({path.name for path in (tmp_path / "out").iterdir()} & {"old", "new"}) == ["new"]
