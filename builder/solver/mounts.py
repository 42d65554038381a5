"""RUN --mount in the solver: planned mounts become the sandbox's, with caches, secrets and agents looked up."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from builder.errors import BuilderError, Interrupted, StepFailed
from builder.filesystem.locks import exclusive
from builder.oci.digests import hex_of
from builder.plan.steps import (
    BindMount,
    CacheMount,
    FromContext,
    FromNode,
    SecretMount,
    SshMount,
    TmpfsMount,
    Tree,
)
from builder.plan.steps import Mount as PlannedMount
from builder.progress import Warned
from builder.sandbox.command import Mount
from builder.solver.copy import MOUNTED
from builder.solver.environment import Environment
from builder.solver.isolation import CHROOT, choose
from builder.solver.keys import content_name
from builder.solver.roots import Layers
from builder.solver.waiting import Waiting
from builder.store.mounts import hold, note_use, pin_of, read_mount
from builder.store.store import remove_tree

_SCRIPTS = "/dev/pipes"


class Mounting:
    """Turns the mounts of one step into the sandbox's. Locks are held by `held`; `variables` collects what secrets put
    into the environment, `agents` where the sockets of SSH agents are (or would be: one may be missing)."""

    def __init__(
        self,
        environment: Environment,
        roots: dict[int, Layers],
        contents: dict[str, str],
        scratch: str,
        held: ExitStack,
    ) -> None:
        self._environment = environment
        self._roots = roots
        self._contents = contents
        self._scratch = scratch
        self._held = held
        self._count = 0
        self._claimed: set[str] = set()
        self.variables: dict[str, str] = {}
        self.agents: list[str] = []

    def mounts(self, planned: PlannedMount) -> Iterator[Mount]:
        """The sandbox's mounts for a planned one: one, or none for an optional secret that is not given."""
        if isinstance(planned, BindMount):
            yield self._bind(planned)
        elif isinstance(planned, CacheMount):
            yield self._cache(planned)
        elif isinstance(planned, TmpfsMount):
            yield Mount(planned.target, "tmpfs", read_only=False, size=planned.size)
        elif isinstance(planned, SecretMount):
            yield from self._secret(planned)
        elif isinstance(planned, SshMount):
            yield from self._agent(planned)

    def script(self, name: str, text: str) -> Mount:
        """A here-document with an interpreter line, as an executable file."""
        content = text.encode("utf-8", "surrogateescape")
        return Mount(f"{_SCRIPTS}/{name}", "file", content=content, mode=0o755)

    def _bind(self, planned: BindMount) -> Mount:
        layers, subpath = self._source(planned.tree, planned.source)
        lowers = tuple(self._environment.store.unpacked.directories(layers)) or (self._directory("empty"),)
        upper = work = ""
        if planned.writable:
            upper, work = self._directory("upper"), self._directory("work")
        return Mount(
            planned.target,
            "overlay",
            lowers=lowers,
            subpath=subpath,
            upper=upper,
            work=work,
            read_only=not planned.writable,
        )

    def _source(self, tree: Tree, source: str) -> tuple[Layers, str]:
        """The layers that hold what a mount shows, and where in them it is."""
        if isinstance(tree, FromNode):
            return self._roots[tree.node], source.lstrip("/")
        if isinstance(tree, FromContext):
            return (self._contents[content_name(tree, source)],), MOUNTED
        return (), source.lstrip("/")

    def _directory(self, name: str) -> str:
        self._count += 1
        path = os.path.join(self._scratch, f"{name}-{self._count}")
        os.mkdir(path)
        os.chmod(path, 0o755)
        return path

    def _cache(self, planned: CacheMount) -> Mount:
        name = self._cache_name(planned)
        path = self._claim_free(planned) if planned.sharing == "private" else self._path(planned)
        if path not in self._claimed:
            self.claim((planned,))
        note_use(path, planned.cache.removeprefix("/"))
        data = os.path.join(path, "data")
        if not os.path.isdir(data):
            with exclusive(os.path.join(path, "fill"), self._waiting(planned.cache)):
                if not os.path.isdir(data) and not (os.path.basename(path) == name and self._restore(name, data)):
                    self._fill(planned, data)
        return Mount(planned.target, "bind", source=data, read_only=planned.read_only)

    def _cache_name(self, planned: CacheMount) -> str:
        """A cache is told by its id and by what it starts from: files, or an owner and a mode, as in BuildKit."""
        start = [*self._source(planned.tree, planned.source)[0], planned.source]
        start += [str(value) for value in (planned.mode, planned.uid, planned.gid)]
        return hex_of("\0".join([planned.cache, *start]).encode("utf-8", "surrogateescape"))[:32]

    def _path(self, planned: CacheMount) -> str:
        return os.path.join(self._environment.store.mounts, self._cache_name(planned))

    def claim(self, planned: Iterable[PlannedMount]) -> None:
        """Take the caches that a command shares with others, or waits for if they are `locked`. Commands that take
        several do so in one order, so that they do not wait for each other.

        Only the next in turn looks whether a cache is free, and the others wait for their turn: or a build that has the
        cache would take it for its next command between two looks of one that has waited for long.

        A command in a chroot has each alone: files are copied from there and back, by their paths, which another
        command that writes there at the same time could lead anywhere on this machine.
        """
        caches = [mount for mount in planned if isinstance(mount, CacheMount) and mount.sharing != "private"]
        if not caches:
            return
        alone = choose(self._environment.isolation).rung == CHROOT
        modes: dict[str, int] = {}
        names: dict[str, str] = {}
        for mount in caches:
            mode = fcntl.LOCK_EX if alone or mount.sharing == "locked" else fcntl.LOCK_SH
            path = self._path(mount)
            modes[path], names[path] = max(mode, modes.get(path, mode)), mount.cache
        for path, mode in sorted(modes.items()):
            waiting = self._waiting(names[path])
            with self._environment.store.step_locks.exclusive(f"turn {os.path.basename(path)}", waiting):
                while not self._take(path, mode):
                    waiting()

    def _waiting(self, cache: str) -> Waiting:
        text = f"a command waits for the cache mount {cache.removeprefix('/')}, which another uses"
        return Waiting(self._environment, text)

    def _claim_free(self, planned: CacheMount) -> str:
        """The first directory of a `private` cache that nobody has."""
        path = base = self._path(planned)
        number = 0
        while not self._take(path, fcntl.LOCK_EX):
            number += 1
            path = f"{base}.{number}"
        return path

    def _take(self, path: str, mode: int) -> bool:
        """Lock a cache, if no other's lock keeps us from it. Whether that was done. What has it stays until the build
        ends."""
        try:
            self._held.callback(os.close, hold(path, mode | fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        self._environment.store.layout.pin(pin_of(os.path.basename(path)))
        self._claimed.add(path)
        return True

    def _restore(self, name: str, data: str) -> bool:
        """Take over the mount from a cache that the build names, if one has it. Whether it could be had."""
        external = self._environment.cache.external
        found = external.mounts.get(name) if external is not None else None
        if found is None:
            return False
        fetched = os.path.join(self._scratch, f"{name}.tar")
        try:
            with open(fetched, "w+b") as file:
                self._environment.store.layers.fetch(found.offer.origin, found.offer.descriptor, file)
                file.seek(0)
                read_mount(file, f"{fetched}.data", self._environment.store.limits)
        except (BuilderError, OSError) as error:
            if isinstance(error, Interrupted):
                raise
            self._environment.report(Warned(f"the cache mount {found.id} starts empty: {error}"))
            return False
        os.rename(f"{fetched}.data", data)
        os.unlink(fetched)
        return True

    def _fill(self, planned: CacheMount, data: str) -> None:
        """Make a new cache: empty, with the owner and mode that are given, or with what it starts from, as that is.
        Nobody else does so meanwhile.

        As in BuildKit (`setCacheUIDGID` of `convert_runmount.go`) an owner or a mode makes a directory of its own
        beside what the root of a stage holds, and counts for nothing where a `source` is named."""
        new = f"{data}.new"
        if os.path.exists(new):
            remove_tree(new)  # a killed build left it
        os.mkdir(new)
        mode = 0o755 if planned.mode is None else planned.mode & 0o777
        owner = planned.uid or 0, planned.gid or 0
        layers, subpath = self._source(planned.tree, planned.source)
        owned = any(value is not None for value in (planned.mode, planned.uid, planned.gid))
        if layers and not (owned and planned.source == "/"):
            mode, owner = self._seed(layers, subpath, new)
        os.chmod(new, mode)
        try:
            os.chown(new, *owner)
        except OSError as error:
            raise StepFailed(
                f"cache mount at {planned.target}: owner {owner[0]}:{owner[1]}: {error.strerror}",
                remedy="without root and subordinate ids all files belong to one user: 'builder doctor' says more",
            ) from error
        os.rename(new, data)

    def _seed(self, layers: Layers, subpath: str, into: str) -> tuple[int, tuple[int, int]]:
        """Fill a directory; returns the mode and the owner of the one that it starts from."""
        from builder.filesystem.kinds import DIRECTORY
        from builder.plan.steps import CopyFiles
        from builder.solver.assemble import write_layer
        from builder.solver.place import Ownership, place
        from builder.solver.roots import EmptyTree, root_tree
        from builder.solver.select import select
        from builder.solver.staging import Staging

        tree = root_tree(self._environment, layers)
        staging = Staging(EmptyTree())
        (match,) = select(tree, CopyFiles(tree=FromNode(0), path=subpath, literal=True), ())
        place(staging, tree, match, "/", Ownership())
        blob = write_layer(staging, self._scratch)
        from builder.filesystem.decompress import decompressor
        from builder.filesystem.unpack import unpack

        with open(blob.path, "rb") as file:
            unpack(decompressor(file), into, layer=False)
        os.unlink(blob.path)
        info = match.info
        return (info.mode, (info.uid, info.gid)) if info.kind == DIRECTORY else (0o755, (0, 0))

    def _secret(self, planned: SecretMount) -> Iterator[Mount]:
        read = self._environment.secrets.get(planned.secret)
        if read is None:
            if planned.variable and planned.variable != "HOME":  # as in BuildKit, which sets a HOME that is empty
                self.variables[planned.variable] = ""
            return
        content = read()
        if planned.variable:
            self.variables[planned.variable] = content.decode("utf-8", "surrogateescape")
        if planned.target:
            yield Mount(planned.target, "file", content=content, mode=planned.mode, uid=planned.uid, gid=planned.gid)

    def _agent(self, planned: SshMount) -> Iterator[Mount]:
        target = planned.target or f"/run/buildkit/ssh_agent.{len(self.agents)}"
        self.agents.append(target)
        agent = self._environment.agents.get(planned.agent)
        if agent is None:
            return
        from builder.solver.agents import AgentSocket, check_agent

        check_agent(planned.agent, agent)
        path = os.path.join(self._directory("agent"), "socket")
        listening = AgentSocket(agent, path, mode=planned.mode, uid=planned.uid, gid=planned.gid)
        self._held.callback(listening.close)
        yield Mount(target, "bind", source=path, read_only=False)
