"""Every option of a build and of RUN that concerns the sandbox, on every rung: it is honoured, or it is an error."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from tests.support.builds import BASE, PROJECT, Cli, Done, busybox_context, needs_sandbox
from tests.support.namespaces import entering

pytestmark = needs_sandbox

ROOT, MANY, ONE, CHROOT = "root", "user namespace", "one user", "chroot"
SUBORDINATE = 1_000_000
NOBODY = 65_534

# Each becomes its arguments, after the interpreter to do that with.
WRAPPERS = {
    ROOT: "",
    # As `builder` itself does for an ordinary user with subordinate ids; that user would have to be in /etc/subuid.
    MANY: f"""\
{entering(f"0 {SUBORDINATE} 65536")}os.setgroups([])
os.setresgid(0, 0, 0)
os.setresuid(0, 0, 0)
""",
    ONE: f"os.setgroups([]); os.setresgid({NOBODY}, {NOBODY}, {NOBODY}); os.setresuid({NOBODY}, {NOBODY}, {NOBODY})\n",
    CHROOT: """\
from builder.sandbox import capabilities
present = capabilities.bounding()
capabilities.limit_bounding(present, present & ~(1 << capabilities.SYS_ADMIN))
""",
}
OWNERS = {ROOT: 0, MANY: SUBORDINATE, ONE: NOBODY, CHROOT: 0}


def interpreter() -> str:
    """A Python that users may execute who may not enter root's home; '' if there is none."""
    for path in (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
        real = Path(path).resolve()
        if real.exists() and all(parent.stat().st_mode & 0o001 for parent in (real, *real.parents)):
            return path
    return ""


class Rung(Cli):
    """`builder` on a rung, in a directory that it can reach."""

    def __init__(self, name: str, place: Path) -> None:
        super().__init__(place / "store")
        self.name = name
        self.place = place
        self.python = sys.executable if OWNERS[name] == 0 else interpreter()
        self.environ["PYTHONPATH"] = os.pathsep.join(
            [str(PROJECT), sysconfig.get_path("purelib"), str(Path(msgspec.__file__).parents[1])]
        )

    def run(self, *arguments: str) -> Done:
        script = f"import os, sys\n{WRAPPERS[self.name]}os.execv({self.python!r}, [{self.python!r}, *sys.argv[1:]])\n"
        words = [sys.executable, "-c", script, "-m", "builder", *self.arguments(*arguments)]
        done = subprocess.run(words, env=self.environ, cwd=self.place, capture_output=True, timeout=60)
        return Done(done.returncode, done.stdout, done.stderr.decode())

    def build(self, commands: str, *options: str) -> Done:  # type: ignore[override]
        dockerfile = self.place / "Dockerfile"
        dockerfile.write_text(f"{BASE}COPY context/f /d/f\n{commands}")
        return self.run("build", "--progress", "plain", "-f", str(dockerfile), *options, str(self.place / "c"))


@pytest.fixture(scope="module", params=[ROOT, MANY, ONE, CHROOT])
def rung(request: pytest.FixtureRequest) -> Iterator[Rung]:
    name: str = request.param
    if OWNERS[name]:
        if not interpreter():
            pytest.skip("every interpreter is where only root can execute it")
        if any(not parent.stat().st_mode & 0o001 for parent in (PROJECT, *PROJECT.parents)):
            pytest.skip("the project is where only root can read it")
    place = Path(tempfile.mkdtemp(prefix="rung-"))
    try:
        place.chmod(0o755)
        source = busybox_context(place / "c")
        (source / "context").mkdir()
        (source / "context/f").write_text("1")
        for applet in ("grep", "mount", "wc", "id", "head"):
            if not (source / "base/bin" / applet).exists():
                (source / "base/bin" / applet).symlink_to("busybox")
        (place / "secret").write_text("hush-hush-9")
        cli = Rung(name, place)
        for path in (place, *place.rglob("*")):
            os.chown(path, OWNERS[name], OWNERS[name], follow_symlinks=False)
        done = cli.build("RUN true\n")
        if OWNERS[name] and ("user namespace" in done.err or "Operation not permitted" in done.err):
            pytest.skip(f"no user namespaces here: {done.err}")
        assert done.status == 0, done.err
        yield cli
    finally:
        shutil.rmtree(place)


class Case(NamedTuple):
    """Something that can be asked for: options of the build, instructions that check that it was given, and for the
    rungs where it cannot be, what the error says."""

    name: str
    commands: str
    options: tuple[str, ...] = ()
    refused: dict[str, str] = {}  # noqa: RUF012


def chroot(what: str) -> dict[str, str]:
    return {CHROOT: f"in a chroot there is no way to have {what}"}


def nowhere(what: str) -> dict[str, str]:
    return dict.fromkeys(WRAPPERS, what)


def tries(command: str) -> str:
    """Fails if a command does not; but not where mounts are copies (there is no /proc), as the step must fail there."""
    return f"if {command} 2> /dev/null; then test ! -e /proc/self; fi"


def written(path: str) -> dict[str, str]:
    return {CHROOT: f"the command wrote to {path}, which its mount shows read-only"}


ALLOW = ("--allow", "security.insecure,network.host")
SECRET = ("--secret", "id=s,src=secret")
NO_GROUP = {
    **chroot("{}"),
    **dict.fromkeys((MANY, ONE), "{} needs a control group"),
}


def limit(option: str) -> dict[str, str]:
    return {rung: text.format(option) for rung, text in NO_GROUP.items()}


ONE_LINE_ONLY = "test $(wc -l < /proc/net/dev) = 3"  # the loopback interface
CASES = [
    Case("network default", "RUN --network=default true"),
    Case("network none", f"RUN --network=none {ONE_LINE_ONLY}", (), chroot("--network=none")),
    Case("network host", "RUN --network=host true", ALLOW),
    Case("network host is not allowed", "RUN --network=host true", (), nowhere("network.host is not allowed")),
    Case("--network none", f"RUN {ONE_LINE_ONLY}", ("--network", "none"), chroot("--network=none")),
    Case("--network host", "RUN true", ("--network", "host")),
    Case("--offline", f"RUN {ONE_LINE_ONLY}", ("--offline",), chroot("--network=none")),
    Case(
        "security insecure", "RUN --security=insecure mount -t tmpfs none /tmp", ALLOW, chroot("--security=insecure")
    ),
    Case("security sandbox", "RUN --security=sandbox ! mount -t tmpfs none /tmp 2> /dev/null"),
    Case("security is not allowed", "RUN --security=insecure true", (), nowhere("security.insecure is not allowed")),
    Case("device", "RUN --device=vendor.com/class=name true", (), nowhere("--device is not supported")),
    Case("bind", "RUN --mount=type=bind,source=context,target=/m test $(cat /m/f) = 1"),
    Case("bind is read-only", f"RUN --mount=source=context,target=/m {tries('touch /m/x')}", (), written("/m/x")),
    Case("bind ro", f"RUN --mount=source=context,target=/m,ro {tries('touch /m/x')}", (), written("/m/x")),
    Case("bind from", f"RUN --mount=from=base,source=/d,target=/m {tries('rm /m/f')}", (), written("/m/f")),
    Case(
        "bind rw is thrown away",
        "RUN --mount=source=context,target=/m,rw touch /m/x\n"
        "RUN --mount=source=context,target=/m,rw test ! -e /m/x && test ! -e /context/x",
    ),
    Case(
        "cache",
        "RUN --mount=type=cache,target=/c touch /c/x\n"
        "RUN --mount=type=cache,target=/c,sharing=locked test -e /c/x && touch /c/y\n"
        "RUN --mount=type=cache,target=/c,sharing=private test -e /c/y && rm /c/x\n"
        "RUN --mount=type=cache,target=/c,sharing=shared test ! -e /c/x",
    ),
    Case("cache ro", f"RUN --mount=type=cache,target=/r,ro {tries('touch /r/z')}", (), written("/r/z")),
    Case("cache mode", "RUN --mount=type=cache,target=/o,mode=0710 test $(stat -c %a /o) = 710"),
    Case(
        "cache owner", "RUN --mount=type=cache,target=/u,uid=3,gid=4 test $(stat -c %u:%g /u) = 3:4", (),
        {ONE: "cache mount at /u: owner 3:4: Invalid argument"},
    ),
    Case("tmpfs", "RUN --mount=type=tmpfs,target=/t touch /t/x\nRUN test ! -e /t"),
    Case(
        "tmpfs size", "RUN --mount=type=tmpfs,target=/t,size=1m grep -q ' /t .*size=1024k' /proc/mounts", (),
        chroot("--mount=type=tmpfs,size="),
    ),
    Case(
        "secret", "RUN --mount=type=secret,id=s,target=/s,mode=0440 test $(stat -c %a /s) = 440 && test -s /s", SECRET
    ),
    Case(
        "secret owner", "RUN --mount=type=secret,id=s,target=/s,uid=3,gid=4 test $(stat -c %u:%g /s) = 3:4", SECRET,
        {ONE: "mount file at /s: owner 3:4: Invalid argument"},
    ),
    Case("secret as a variable", "RUN --mount=type=secret,id=s,env=T case $T in hush*-9) ;; *) false ;; esac", SECRET),
    Case(
        "secret is read-only", f"RUN --mount=type=secret,id=s,target=/s,mode=0600 {tries('chmod 644 /s')}", SECRET,
        written("/s"),
    ),
    Case("secret required", "RUN --mount=type=secret,id=no,required true", (), nowhere("secret")),
    Case("ssh", "RUN --mount=type=ssh,mode=0666 test -S $SSH_AUTH_SOCK", ("--ssh", "default=key")),
    Case("ssh required", "RUN --mount=type=ssh,id=no,required true", (), nowhere("--ssh no")),
    Case(
        "cache below a bind that is written after it",
        "RUN --mount=type=cache,target=/b/c --mount=source=context,target=/b,rw test $(cat /b/f) = 1 && touch /b/c/x\n"
        "RUN --mount=type=cache,target=/b/c test -e /b/c/x && test ! -e /b/f",
    ),
    Case(
        "secret below a tmpfs that is written after it",
        "RUN --mount=type=secret,id=s,target=/run/secrets/s --mount=type=tmpfs,target=/run test -s /run/secrets/s",
        SECRET,
    ),
    Case(
        "ssh below a tmpfs that is written after it",
        "RUN --mount=type=ssh,target=/run/a --mount=type=ssh,target=/run/0 --mount=type=tmpfs,target=/run"
        " test $SSH_AUTH_SOCK = /run/a && test -S /run/a && test -S /run/0",
        ("--ssh", "default=key"),
    ),
    Case("script", "RUN <<end\n#!/bin/sh\necho x > /x\nend\nRUN test -s /x"),
    Case("user", "USER 5:6\nRUN test $(id -u):$(id -g) = 5:6", (), {ONE: "user 5: Invalid argument"}),
    Case("--memory", "RUN : --memory", ("--memory", "200m"), limit("--memory")),
    Case("--cpus", "RUN : --cpus", ("--cpus", "1"), limit("--cpus")),
    Case(
        "--shm-size", "RUN grep -q ' /dev/shm .*size=1024k' /proc/mounts", ("--shm-size", "1m"), chroot("--shm-size")
    ),
    Case("--ulimit", "RUN test $(ulimit -n) = 99", ("--ulimit", "nofile=99:99")),
    Case("--ulimit of what is none", "RUN : --ulimit of what is none", ("--ulimit", "nonsense=1"), nowhere("nonsense")),
    Case("--add-host", "RUN grep -q '^10.1.2.3.there$' /etc/hosts", ("--add-host", "there:10.1.2.3")),
    Case(
        "hostname", "RUN test $(uname -n) = other", ("--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=other"),
        chroot("the hostname other"),
    ),
    Case("--cgroup-parent", "RUN true", ("--cgroup-parent", "x"), nowhere("--cgroup-parent")),
    Case("--isolation", "RUN : --isolation", ("--isolation", "process"), nowhere("--isolation=process is not")),
    Case(
        "--isolation chroot", "RUN test ! -e /proc/self", ("--isolation", "chroot"),
        dict.fromkeys((MANY, ONE), "needs CAP_MKNOD, which this process lacks, being in a user namespace"),
    ),
]  # fmt: skip


def asked_together(cases: list[Case]) -> Iterator[list[Case]]:
    """Cases whose options go together, as one build: what concerns all steps of a build is asked for alone."""
    alone = [case for case in cases if case.options[:1] in (("--network",), ("--offline",), ("--isolation",))]
    yield from ([case] for case in alone)
    yield [case for case in cases if case not in alone]


def test_what_is_honoured(rung: Rung) -> None:
    """In few builds, of many stages."""
    cases = [case for case in CASES if rung.name not in case.refused]
    if shutil.which("ssh-agent"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(rung.place / "key")]
        subprocess.run(make, check=True)
        os.chown(rung.place / "key", OWNERS[rung.name], OWNERS[rung.name])
    else:
        cases = [case for case in cases if not case.name.startswith("ssh")]
    for some in asked_together(cases):
        done = honoured(rung, some)
        if "needs a control group" in done.err and rung.name == ROOT:  # this machine has none
            done = honoured(rung, [case for case in some if case.name not in ("--memory", "--cpus")])
        assert done.status == 0, ([case.name for case in some], done.err)


def honoured(rung: Rung, cases: list[Case]) -> Done:
    stages = (f"FROM base AS s{number}\n{case.commands}\n" for number, case in enumerate(cases))
    ends = (f"COPY --from=s{number} /d/f /f{number}\n" for number in range(len(cases)))
    options = dict.fromkeys(case.options for case in cases)
    return rung.build(f"{''.join(stages)}FROM scratch\n{''.join(ends)}", *(word for words in options for word in words))


def test_what_is_refused(rung: Rung) -> None:
    for case in CASES:
        if rung.name in case.refused:
            done = rung.build(f"FROM base\n{case.commands}\n", *case.options)
            assert done.status in (1, 2), (case.name, done)
            assert case.refused[rung.name] in done.err, (case.name, done.err)
            assert "Traceback" not in done.err
            assert "internal error" not in done.err
    assert rung.leftovers() == []
