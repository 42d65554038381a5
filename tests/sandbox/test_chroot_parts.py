"""What a command in a chroot does to what is put into its root: mounts that are shown only, caches, secrets."""

from __future__ import annotations

import errno
import os
import platform
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from builder.sandbox import chroot_parts, landlock
from builder.sandbox.chroot import ChrootSandbox
from builder.sandbox.chroot_copy import remove_tree
from builder.sandbox.chroot_parts import Part, scan
from builder.sandbox.command import Mount
from tests.sandbox.outcome import Run
from tests.security.attempts import numbered, results
from tests.support.builds import needs_sandbox
from tests.support.together import together

pytestmark = needs_sandbox
x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="runs a program that is built for x86-64")
keeps_signals_in = pytest.mark.skipif(not landlock.is_able(), reason="needs Linux 6.12 with Landlock")


@pytest.fixture(scope="module")
def chroot() -> Iterator[ChrootSandbox]:
    with closing(ChrootSandbox()) as sandbox:
        yield sandbox


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory to mount, and beside it what no command is given."""
    place = tmp_path / "mounts/source"
    (place / "d/e").mkdir(parents=True)
    (place / "f").write_text("1")
    (place / "d/e/g").write_text("2")
    (place / "link").symlink_to("f")
    return place


def contents(place: Path) -> dict[str, str]:
    return {
        str(path.relative_to(place)): os.readlink(path) if path.is_symlink() else path.read_text()
        for path in sorted(place.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


BEFORE = {"d/e/g": "2", "f": "1", "link": "f"}

# --- what is shown only

WRITES = {
    "new file": ("touch /m/new", "/m/new"),
    "content": ("echo x > /m/f", "/m/f"),
    "the same content": ("echo -n 1 > /m/f", "/m/f"),
    "content, and the time set back": ("touch -r /m/f /t; echo -n 9 > /m/f; touch -r /t /m/f", "/m/f"),
    "deep": ("echo x >> /m/d/e/g", "/m/d/e/g"),
    "mode": ("chmod 700 /m/d", "/m/d"),
    "mode of itself": ("chmod 700 /m", "/m"),
    "owner": ("chown 7 /m/f", "/m/f"),
    "removed": ("rm /m/link", "/m/link"),
    "all removed": ("rm -r /m/*", "/m/d"),
    "itself removed": ("rm -r /m", "/m"),
    "moved away": ("mv /m /n", "/m"),
    "another in its place": ("mv /m /n; mkdir /m", "/m"),
    "a link in its place": ("mv /m /n; ln -s /n /m", "/m"),
    "renamed": ("mv /m/f /m/h", "/m/f"),
}


@pytest.mark.parametrize("way", WRITES)
def test_what_is_shown_only_cannot_be_written_to_unnoticed(
    run: Run, chroot: ChrootSandbox, source: Path, way: str
) -> None:
    script, path = WRITES[way]
    outcome = run(script, by=chroot, mounts=(Mount("/m", source=str(source)),))
    assert (outcome.result.exit_status, outcome.result.written) == (0, path), outcome
    assert contents(source) == BEFORE


@pytest.mark.parametrize("kind", ["bind", "overlay", "file"])
def test_reading_is_no_writing(run: Run, chroot: ChrootSandbox, source: Path, kind: str) -> None:
    mount = Mount("/m", kind, source=str(source), lowers=(str(source),), content=b"1")
    inside = Mount("/m/d/in" if kind != "file" else "/o", "tmpfs", read_only=False)
    script = "cat /m/f /m || cat /m; ls -lR /m; cp -r /m /n; ln /m/f /hard || ln /m /hard; touch /m/d/in/x; true"
    outcome = run(script, by=chroot, mounts=(mount, inside))
    assert (outcome.result.exit_status, outcome.result.written) == (0, ""), outcome


def test_a_file_that_is_shown_only(run: Run, chroot: ChrootSandbox) -> None:
    mount = Mount("/run/s", "file", content=b"hush", mode=0o400)
    for script, path in (("echo x > /run/s", "/run/s"), ("mv /run/s /run/t", "/run/s"), ("cat /run/s", "")):
        assert run(script, by=chroot, mounts=(mount,)).result.written == path


def test_what_may_be_written_to_is_thrown_away(run: Run, chroot: ChrootSandbox, source: Path) -> None:
    mount = Mount("/m", "overlay", lowers=(str(source),), upper="x", work="y", read_only=False)
    outcome = run("echo x > /m/f; rm -r /m/d; mv /m/link /m/new", by=chroot, mounts=(mount,))
    assert (outcome.result.exit_status, outcome.result.written) == (0, "")
    assert contents(source) == BEFORE


def test_parts_leave_no_trace_in_the_layer(run: Run, chroot: ChrootSandbox, source: Path) -> None:
    mounts = (Mount("/m", source=str(source)), Mount("/s", "file", content=b"hush"), Mount("/t", "tmpfs"))
    outcome = run("mkdir /new && cat /s > /dev/null", by=chroot, mounts=mounts)
    assert [path for path in outcome.changed() if path not in ("dev", "proc", "sys")] == ["new"]


def test_a_tree_deeper_than_pythons_stack(run: Run, chroot: ChrootSandbox) -> None:
    outcome = run("i=0; while [ $i -lt 1100 ]; do mkdir d && cd d || exit 3; i=$((i+1)); done", by=chroot)
    try:
        assert outcome.result.exit_status == 0, outcome.result.error
        assert (outcome.upper / ("d/" * 1100)).is_dir()
    finally:
        remove_tree(str(outcome.upper))  # which is beyond pytest, too


# --- what is given back


def cache(source: Path, target: str = "/c") -> Mount:
    return Mount(target, source=str(source), read_only=False)


def test_changes_reach_the_cache(run: Run, chroot: ChrootSandbox, source: Path) -> None:
    script = """
        echo more >> /c/f; mkdir -p /c/new/deep; echo n > /c/new/deep/file; rm -r /c/d; echo d > /c/d
        rm /c/link; ln -s new/deep /c/link; chmod 750 /c/new; chown 7:8 /c/d /c/new/deep; chmod 1777 /c
    """
    assert run(script, by=chroot, mounts=(cache(source),)).result.exit_status == 0
    assert contents(source) == {"d": "d\n", "f": "1more\n", "link": "new/deep", "new/deep/file": "n\n"}
    assert (source / "new").stat().st_mode & 0o7777 == 0o750
    assert (source / "new/deep").stat().st_uid == (source / "d").stat().st_uid == 7
    assert source.stat().st_mode & 0o7777 == 0o1777


def test_what_failed_changes_the_cache_too(run: Run, chroot: ChrootSandbox, source: Path) -> None:
    assert run("rm /c/f; exit 3", by=chroot, mounts=(cache(source),)).result.exit_status == 3
    assert "f" not in contents(source)


def test_steps_share_a_cache(run: Run, chroot: ChrootSandbox, source: Path) -> None:
    """Of two at once neither undoes what the other did."""
    began = threading.Barrier(2)
    scripts = ("echo a > /c/a; rm /c/f; sleep 0.3", "mkdir -p /c/b/b; echo b > /c/b/b/b; echo 3 > /c/d/e/g; sleep 0.3")
    done = []

    def work(script: str) -> None:
        began.wait()
        done.append(run(script, by=chroot, mounts=(cache(source),)).result.exit_status)

    together(*(partial(work, script) for script in scripts))
    assert done == [0, 0]
    assert contents(source) == {"a": "a\n", "b/b/b": "b\n", "d/e/g": "3\n", "link": "f"}


def test_what_is_in_a_cache_and_a_layer_is_two_files(run: Run, chroot: ChrootSandbox, source: Path) -> None:
    """As with mounts, where no link leads from one to the other."""
    outcome = run("echo n > /c/new; ln /c/new /new; ln /c/f /old", by=chroot, mounts=(cache(source),))
    for name, other in (("new", "new"), ("old", "f")):
        assert (outcome.upper / name).read_bytes() == (source / other).read_bytes()
        assert not os.path.samestat((outcome.upper / name).stat(), (source / other).stat())


@pytest.mark.parametrize(("script", "written"), [("cat /c/s", ""), ("mv /c/s /c/kept", "/c/s"), ("rm /c/s", "/c/s")])
def test_a_secret_in_a_cache_is_not_given_to_it(
    run: Run, chroot: ChrootSandbox, source: Path, script: str, written: str
) -> None:
    """`--mount=type=cache,target=/root --mount=type=secret,target=/root/.npmrc`."""
    mounts = (cache(source), Mount("/c/s", "file", content=b"hush"))
    outcome = run(f"{script}; touch /c/new", by=chroot, mounts=mounts)
    assert outcome.result.written == written
    assert contents(source) == {**BEFORE, "new": ""}


@pytest.mark.parametrize("read_only", [True, False])
def test_a_link_in_the_way_leads_nowhere(run: Run, chroot: ChrootSandbox, source: Path, read_only: bool) -> None:
    """The path of the mount, followed from outside of the chroot, would end in a directory of the host."""
    host = source.parent.parent / "host"
    (host / "c").mkdir(parents=True)
    (host / "c/canary").write_text("of the host")
    mount = Mount("/x/c", source=str(source), read_only=read_only)
    outcome = run(f"echo 2 >> /x/c/f; mv /x /y; ln -s {host} /x", by=chroot, mounts=(mount,))
    assert outcome.result.exit_status == 0, outcome
    assert contents(host) == {"c/canary": "of the host"}
    assert contents(source) == (BEFORE if read_only else {**BEFORE, "f": "12\n"})
    assert outcome.result.written == ("/x/c" if read_only else "")


def test_links_in_the_cache_lead_nowhere(tmp_path: Path) -> None:
    """Another step put one where this one removes and writes files."""
    copy, target, host = tmp_path / "copy", tmp_path / "target", tmp_path / "host"
    for place in (copy, target, host):
        (place / "d").mkdir(parents=True)
        (place / "d/old").write_text("1")
        (place / "e").mkdir()
    before = {"": (0,) * 9, **scan(str(copy), ())}
    (copy / "d/old").unlink()
    (copy / "e/new").write_text("2")
    for name in ("d", "e"):
        (target / name).rename(target / f"{name}.aside")
        (target / name).symlink_to(host / name)
    chroot_parts._apply(str(copy), before, {"": (0,) * 9, **scan(str(copy), ())}, str(target))
    assert contents(host) == {"d/old": "1"}
    assert (target / "e/new").read_text() == "2"
    assert not (target / "e").is_symlink()


@pytest.mark.parametrize("links", [1, 2])
def test_secrets_are_overwritten(tmp_path: Path, links: int) -> None:
    (tmp_path / "s").write_text("hush")
    if links == 2:
        (tmp_path / "t").hardlink_to(tmp_path / "s")
    held = os.open(tmp_path / "s", os.O_PATH)
    Part("/s", held, Mount("/s", "file", content=b"hush")).close()
    assert (tmp_path / "s").read_bytes() == (b"hush" if links == 2 else bytes(4))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(held)


# --- other processes


def tried(run: Run, chroot: ChrootSandbox, victim: int, **fields: object) -> dict[str, int]:
    vector = struct.pack("<QQ", 0x400000, 8)
    names, attempt = numbered(
        {
            "ptrace attach": (16, victim, 0, 0),
            "ptrace seize": (0x4206, victim, 0, 0),
            "process_vm_readv": (victim, vector, 1, vector, 1, 0),
            "process_vm_writev": (victim, vector, 1, vector, 1, 0),
            "kcmp": (victim, victim, 0, 0, 0),
            "pidfd_open": (victim, 0),
            "pidfd_getfd": (3, 1, 0),
            "kill": (victim, 0),
            "pidfd_send_signal": (3, 0, 0, 0),
        }
    )
    outcome = run(
        "/attempt | od -An -v -tx1",
        by=chroot,
        mounts=(Mount("/attempt", "file", content=attempt, mode=0o755),),
        **fields,
    )
    assert outcome.result.exit_status == 0, outcome
    return results(bytes.fromhex(outcome.out), names)


SIGNALS = ("kill", "pidfd_send_signal")
TRACING = ("ptrace attach", "ptrace seize", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd")


@x86_64
@pytest.mark.parametrize("uid", [0, 99])
def test_the_builder_cannot_be_traced(run: Run, chroot: ChrootSandbox, uid: int) -> None:
    found = tried(run, chroot, os.getpid(), uid=uid)
    assert {name: found[name] for name in TRACING} == dict.fromkeys(TRACING, errno.EPERM)


@x86_64
@keeps_signals_in
def test_the_builder_cannot_be_signalled(run: Run, chroot: ChrootSandbox) -> None:
    found = tried(run, chroot, os.getpid())
    assert {name: found[name] for name in SIGNALS} == dict.fromkeys(SIGNALS, errno.EPERM)
    assert run("kill -9 -1; kill -9 $PPID; echo still", by=chroot).lines == ["still"]


@x86_64
@keeps_signals_in
def test_commands_cannot_reach_each_other(run: Run, chroot: ChrootSandbox) -> None:
    """They have the same user and the same capabilities."""
    mark = f"{1000 + os.getpid()}.{int.from_bytes(os.urandom(3), 'big')}"
    first = threading.Thread(target=lambda: run(f"sleep {mark}", by=chroot))
    first.daemon = True
    first.start()
    victim = None
    while victim is None:
        victim = _sleeping(mark)
    found = tried(run, chroot, victim)
    wanted = (*TRACING, *SIGNALS)
    os.kill(victim, 9)
    assert {name: found[name] for name in wanted} == dict.fromkeys(wanted, errno.EPERM)


def _sleeping(mark: str) -> int | None:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[-2:-1] == [mark.encode()] and b"sleep" in words[0]:
                return int(entry.name)
    return None


def test_commands_signal_their_own(run: Run, chroot: ChrootSandbox) -> None:
    outcome = run("sleep 60 & kill -9 $!; wait $!; echo $?; trap 'echo caught' USR1; kill -USR1 $$", by=chroot)
    assert outcome.lines == ["137", "caught"]
