"""Checking out git repositories, served as plain files over HTTP on loopback, which git calls the dumb protocol."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from builder.context.git import GitRef, Resolved, checkout, is_commit, parse_git_url, resolve
from builder.errors import ContextError
from builder.filesystem.syscalls import remove_tree
from tests.support.http import serving

WHEN = 1_546_300_800


class Files(http.server.SimpleHTTPRequestHandler):
    authorizations: ClassVar[list[str | None]] = []

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        self.authorizations.append(self.headers.get("Authorization"))
        super().do_GET()


class Remote(msgspec.Struct, frozen=True):
    """The served repository: branches main and dev, an annotated tag v1 and a branch v1 to be confused with it."""

    url: str
    root: Path
    commits: dict[str, str]

    def ref(self, text: str = "", name: str = "repo.git") -> GitRef:
        found = parse_git_url(f"{self.url}/{name}{text}")
        assert found is not None
        return found


def git(directory: Path, *arguments: str) -> str:
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(directory), "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ALLOW_PROTOCOL": "file:http",
    }  # fmt: skip
    for who in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{who}_NAME": "t", f"GIT_{who}_EMAIL": "t@example.com", f"GIT_{who}_DATE": f"{WHEN} +0000"}
    done = subprocess.run(["git", *arguments], cwd=directory, env=environment, capture_output=True, check=True)
    return done.stdout.decode().strip()


def publish(root: Path, work: Path, name: str) -> None:
    git(root, "clone", "--quiet", "--bare", str(work), str(root / name))
    git(root / name, "update-server-info")


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    root = tmp_path_factory.mktemp("git")
    work, library = root / "work", root / "library"
    for path in (work, library):
        path.mkdir()
        git(path, "init", "--quiet", "-b", "main")
    (library / "lib.c").write_text("int x;\n")
    git(library, "add", ".")
    git(library, "commit", "--quiet", "-m", "library")
    publish(root, library, "library.git")

    commits = {}
    (work / "sub/deep").mkdir(parents=True)
    (work / "f").write_text("main 1\n")
    (work / "run").write_text("#!/bin/sh\n")
    (work / "run").chmod(0o755)
    (work / "sub/deep/g").write_text("g\n")
    (work / "link").symlink_to("sub")
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", "one")
    commits["first"] = git(work, "rev-parse", "HEAD")
    git(work, "tag", "-a", "v1", "-m", "tagged")
    commits["tag object"] = git(work, "rev-parse", "v1")
    git(work, "tag", "light")
    git(work, "checkout", "--quiet", "-b", "dev")
    (work / "f").write_text("dev\n")
    git(work, "commit", "--quiet", "-a", "-m", "two")
    commits["dev"] = git(work, "rev-parse", "HEAD")
    git(work, "branch", "light")
    git(work, "checkout", "--quiet", "main")
    (work / "f").write_text("main 2\n")
    git(work, "commit", "--quiet", "-a", "-m", "three")
    commits["main"] = git(work, "rev-parse", "HEAD")
    publish(root, work, "repo.git")

    (work / ".gitmodules").write_text('[submodule "vendor/library"]\n\tpath = vendor/library\n\turl = ../library.git\n')
    tip = git(library, "rev-parse", "HEAD")
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{tip},vendor/library")
    git(work, "add", ".gitmodules")
    git(work, "commit", "--quiet", "-m", "submodule")
    publish(root, work, "modules.git")
    (work / ".gitmodules").write_text(f'[submodule "x"]\n\tpath = vendor/library\n\turl = {root}/library.git\n')
    git(work, "add", ".gitmodules")
    git(work, "commit", "--quiet", "-m", "a submodule of the host")
    publish(root, work, "sneaky.git")
    with serving(functools.partial(Files, directory=str(root))) as url:
        yield Remote(url, root, commits)


def taken(ref: GitRef, into: Path, **options: object) -> str:
    into.mkdir()
    made = checkout(ref, str(into), **options)  # type: ignore[arg-type]
    assert made.time == WHEN
    return made.commit


@pytest.mark.parametrize(
    ("text", "commit", "content"),
    [
        ("", "main", "main 2\n"),
        ("#dev", "dev", "dev\n"),
        ("#refs/heads/dev", "dev", "dev\n"),
        ("#heads/dev", "dev", "dev\n"),
        ("?branch=dev", "dev", "dev\n"),
        ("#v1", "first", "main 1\n"),
        ("?tag=v1", "first", "main 1\n"),
        ("#light", "dev", "dev\n"),  # a branch is preferred to a tag
        ("?tag=light", "first", "main 1\n"),
    ],
)
def test_names(remote: Remote, tmp_path: Path, text: str, commit: str, content: str) -> None:
    ref = remote.ref(text)
    assert resolve(ref).commit == remote.commits[commit]
    assert taken(ref, tmp_path / "c") == remote.commits[commit]
    assert (tmp_path / "c/f").read_text() == content
    assert sorted(os.listdir(tmp_path / "c")) == ["f", "link", "run", "sub"]


def test_commits(remote: Remote, tmp_path: Path) -> None:
    first = remote.commits["first"]
    assert resolve(remote.ref(f"#{first}")) == Resolved(first, first, first)
    assert taken(remote.ref(f"#{first}"), tmp_path / "a") == first
    assert (tmp_path / "a/f").read_text() == "main 1\n"
    assert taken(remote.ref(f"?fetch-by-commit&checksum={first}#main"), tmp_path / "b") == first
    with pytest.raises(ContextError, match="no commit 0123"):
        taken(remote.ref("#" + "0123456789" * 4), tmp_path / "c")
    with pytest.raises(ContextError, match="no branch or tag") as caught:
        resolve(remote.ref(f"#{first[:10]}"))
    assert caught.value.remedy
    assert is_commit(first)
    assert not is_commit(first.upper())


def test_resolved_pins(remote: Remote, tmp_path: Path) -> None:
    """The branch has moved since it was resolved: what was resolved is what is taken."""
    first = remote.commits["first"]
    commit = taken(remote.ref("#main"), tmp_path / "c", resolved=Resolved("refs/heads/main", first, first))
    assert commit == first
    assert (tmp_path / "c/f").read_text() == "main 1\n"


def test_modes_and_times(remote: Remote, tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        taken(remote.ref("?mtime=commit"), tmp_path / "c")
    finally:
        os.umask(old)
    modes = {name: (tmp_path / "c" / name).lstat().st_mode & 0o777 for name in ("f", "run", "sub")}
    assert modes == {"f": 0o644, "run": 0o755, "sub": 0o755}
    assert os.readlink(tmp_path / "c/link") == "sub"
    assert {path.lstat().st_mtime for path in (tmp_path / "c").rglob("*")} == {WHEN}


def test_subdirectory(remote: Remote, tmp_path: Path) -> None:
    taken(remote.ref("#main:sub"), tmp_path / "a", keep_git_dir=True)
    assert os.listdir(tmp_path / "a") == ["deep"]
    taken(remote.ref("?subdir=/sub/./deep/"), tmp_path / "b")
    assert os.listdir(tmp_path / "b") == ["g"]
    wrong = [("nope", "no directory"), ("f", "not a directory"), ("link/deep", "not a directory")]
    for number, (subdir, cause) in enumerate(wrong):
        with pytest.raises(ContextError, match=cause):
            taken(remote.ref(f"#main:{subdir}"), tmp_path / f"wrong{number}")


def test_keep_git_dir(remote: Remote, tmp_path: Path) -> None:
    ref = remote.ref("?keep-git-dir")
    for name, options in (("a", {}), ("b", {"keep_git_dir": True}), ("c", {"keep_git_dir": False})):
        taken(ref, tmp_path / name, **options)
        assert (tmp_path / name / ".git/HEAD").exists() is (name != "c")
    assert git(tmp_path / "a", "status", "--porcelain") == ""
    assert git(tmp_path / "a", "rev-parse", "HEAD") == remote.commits["main"]
    assert not (tmp_path / "a/.git/logs").exists()
    assert not (tmp_path / "a/.git/hooks").exists()


@pytest.mark.parametrize("name", ["repo.git", "modules.git"])
def test_no_credentials_stay(remote: Remote, tmp_path: Path, name: str) -> None:
    """Also where a submodule's address is relative to that of the repository."""
    ref = remote.ref("?keep-git-dir", name=name)
    secret = msgspec.structs.replace(ref, remote=ref.remote.replace("http://", "http://me:hunter%32@"))
    Files.authorizations.clear()
    taken(secret, tmp_path / "c")
    assert set(Files.authorizations) == {"Basic bWU6aHVudGVyMg=="}
    found = {path: path.read_bytes() for path in (tmp_path / "c").rglob("*") if path.is_file()}
    secrets = (b"hunter", b"bWU6aHVudGVyMg", b"me@", b"me:")
    assert not [path for path, data in found.items() if any(secret in data for secret in secrets)]
    assert (tmp_path / "c/vendor/library/.git").exists() is (name == "modules.git")
    assert not [path for path in found if {"logs", "FETCH_HEAD"} & set(path.parts)]


CONNECT = """#!/bin/sh
echo "$@" >> {called}
for command; do :; done
eval "$(echo "$command" | sed "s,'/,'{root}/,")"
"""


def test_no_password_of_another_protocol_stays(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user is a part of the address there."""
    connect = tmp_path / "ssh"
    connect.write_text(CONNECT.format(called=tmp_path / "called", root=remote.root))
    connect.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for number, user in enumerate(("git:hunter2", "git")):
        ref = parse_git_url(f"ssh://{user}@host/modules.git?keep-git-dir")
        assert ref is not None
        (tmp_path / "called").unlink(missing_ok=True)
        into = tmp_path / str(number)
        taken(ref, into)
        assert (into / "vendor/library/lib.c").exists()
        assert f"{user}@host" in (tmp_path / "called").read_text()
        assert not [path for path in into.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]


def test_credentials_are_in_no_error(remote: Remote) -> None:
    ref = remote.ref()
    secret = msgspec.structs.replace(ref, remote=ref.remote.replace("http://", "http://me:hunter2@"))
    gone = msgspec.structs.replace(secret, remote=secret.remote.replace("repo.git", "gone.git"))
    with pytest.raises(ContextError, match="cannot be read") as caught:
        resolve(gone)
    assert "hunter2" not in f"{caught.value} {caught.value.details}"
    assert any("not found" in line for line in caught.value.details)


def test_authorization_is_sent(remote: Remote) -> None:
    Files.authorizations.clear()
    resolve(remote.ref(), authorization="Basic dDp0")
    assert set(Files.authorizations) == {"Basic dDp0"}


def serve_commit(remote: Remote, directory: Path, name: str, *, tree: str = "", committer: str = "") -> None:
    """Publish a repository with one commit, whose tree has one file at a path, and whose committer's line is given."""
    directory.mkdir()
    git(directory, "init", "--quiet", "-b", "main")
    (directory / "file").write_text("x")
    blob = git(directory, "hash-object", "-w", "file")
    git(directory, "update-index", "--add", "--cacheinfo", f"100644,{blob},{tree or 'file'}")
    person = f"t <t@example.com> {WHEN} +0000"
    lines = [
        f"tree {git(directory, 'write-tree')}",
        f"author {person}",
        f"committer {committer or person}",
        "",
        "hostile",
        "",
    ]
    (directory / "commit").write_text("\n".join(lines))
    commit = git(directory, "hash-object", "-t", "commit", "-w", "--literally", "commit")
    git(directory, "update-ref", "refs/heads/main", commit)
    publish(remote.root, directory, name)


@pytest.mark.parametrize(
    ("committer", "expected"),
    [
        ("t <t@example.com>", 0),
        ("t <t@example.com> soon +0000", 0),
        ("t", 0),
        (f"t <t@example.com> {2**63} +0000", 0),
        ("t <t@example.com> 253402300800 +0000", 0),
        ("t <t@example.com> 253402300799 +0000", 253402300799),
    ],
)
def test_commits_without_a_time(remote: Remote, tmp_path: Path, committer: str, expected: int) -> None:
    """Such were made by old converters; git shows them as of 1970, too."""
    serve_commit(remote, tmp_path / "work", f"{tmp_path.name}.git", committer=committer)
    (tmp_path / "c").mkdir()
    made = checkout(remote.ref("?mtime=commit", name=f"{tmp_path.name}.git"), str(tmp_path / "c"))
    assert made.time == expected
    assert expected or (tmp_path / "c/file").stat().st_mtime == 0


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """Where a tree comes that pytest could not remove."""
    yield tmp_path / "deep"
    remove_tree(str(tmp_path / "deep"))


@pytest.mark.parametrize("keep", [False, True])
def test_a_tree_deeper_than_pythons_stack(remote: Remote, tmp_path: Path, deep: Path, keep: bool) -> None:
    serve_commit(remote, tmp_path / "work", f"deep{keep}.git", tree="a/" * 1100 + "f")
    taken(remote.ref("?mtime=commit", name=f"deep{keep}.git"), deep, keep_git_dir=keep)
    assert (deep / ("a/" * 1100) / "f").stat().st_mtime == WHEN
    assert (deep / ".git").exists() is keep


def test_a_path_that_is_too_long(remote: Remote, tmp_path: Path, deep: Path) -> None:
    """git takes it, since it counts from where it stands."""
    serve_commit(remote, tmp_path / "work", "long.git", tree=("b" * 200 + "/") * 20 + "f")
    with pytest.raises(ContextError, match="cannot be checked out") as caught:
        taken(remote.ref("?mtime=commit", name="long.git"), deep)
    assert "too long" in f"{caught.value} {caught.value.details}"


@pytest.mark.parametrize(
    "name", ["--upload-pack=true", "-x", "heads/main", "refs/heads/a:refs/b", "refs/*", "refs/a b"]
)
def test_a_default_branch_that_is_no_name(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What a server says is not given to git as an option."""
    program, real = tmp_path / "bin/git", shutil.which("git")
    program.parent.mkdir()
    script = f"""#!/bin/sh
    case "$*" in *ls-remote*) {real} "$@" | sed 's,^ref: .*HEAD,ref: {name}\tHEAD,';; *)
    echo "$@" >> {tmp_path}/called; exec {real} "$@";; esac
    """
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert resolve(remote.ref()) == Resolved("HEAD", remote.commits["main"], remote.commits["main"])
    assert taken(remote.ref(), tmp_path / "c") == remote.commits["main"]
    assert name not in (tmp_path / "called").read_text()
    assert " -- origin " in (tmp_path / "called").read_text()


def test_checksum(remote: Remote, tmp_path: Path) -> None:
    first = remote.commits["first"]
    for digits in (1, 6, 7):
        assert taken(remote.ref(f"?checksum={first[:digits]}#v1"), tmp_path / f"a{digits}") == first
    assert taken(remote.ref(f"?checksum={remote.commits['tag object']}#v1"), tmp_path / "b") == first
    assert resolve(remote.ref(f"?checksum={first}#{first}")).commit == first
    for text in ("?checksum=0000000#main", f"?checksum=0000000#{first}"):
        with pytest.raises(ContextError, match="not 0000000"):
            resolve(remote.ref(text))
    for checksum in ("abcg", "xyzxyzxyz", "a" * 65):
        with pytest.raises(ContextError, match="invalid checksum"):
            resolve(remote.ref(f"?checksum={checksum}"))


def test_submodules(remote: Remote, tmp_path: Path) -> None:
    taken(remote.ref(name="modules.git"), tmp_path / "a")
    assert (tmp_path / "a/vendor/library/lib.c").read_text() == "int x;\n"
    assert not list((tmp_path / "a").rglob(".git"))
    taken(remote.ref("?submodules=false", name="modules.git"), tmp_path / "b")
    assert os.listdir(tmp_path / "b/vendor/library") == []


def test_a_submodule_of_the_hosts_files_is_refused(remote: Remote, tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="cannot be checked out") as caught:
        taken(remote.ref(name="sneaky.git"), tmp_path / "c")
    assert any("not allowed" in line for line in caught.value.details)


def test_the_users_git_is_left_alone(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the configuration, nor templates with hooks, nor variables of a surrounding git reach ours."""
    hook = tmp_path / "template/hooks/post-checkout"
    hook.parent.mkdir(parents=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    config = tmp_path / "home/.gitconfig"
    config.parent.mkdir()
    config.write_text(f"[init]\ntemplateDir = {hook.parent.parent}\n[core]\nhooksPath = {hook.parent}\n")
    monkeypatch.setenv("HOME", str(config.parent))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(hook.parent.parent))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.chdir(remote.root / "work")
    assert taken(remote.ref("#dev"), tmp_path / "c") == remote.commits["dev"]
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "elsewhere").exists()


def test_no_git_program(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ContextError, match="no git program") as caught:
        resolve(remote.ref())
    assert "install git" in str(caught.value.remedy)


def test_unreachable() -> None:
    ref = parse_git_url("http://127.0.0.1:1/x.git")
    assert ref is not None
    with pytest.raises(ContextError, match="cannot be read") as caught:
        resolve(ref)
    assert caught.value.place == "http://127.0.0.1:1/x.git"
    assert caught.value.details
