"""Plans of short Dockerfiles, and a plan in words: one line a node."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from builder.dockerfile.parser import parse
from builder.oci.platform import parse_platform
from builder.oci.spec import ContainerConfig, History, ImageConfig, Platform, RootFS, encode
from builder.plan.locate import Locator
from builder.plan.options import ContextKind, PlanOptions
from builder.plan.paths import DEFAULT_PATH
from builder.plan.planner import plan
from builder.plan.steps import (
    AnyNode,
    BindMount,
    CacheMount,
    CopyFiles,
    CopyGit,
    CopyInline,
    CopyNode,
    CopySource,
    CopyUrl,
    FromContext,
    FromNode,
    ImageKey,
    ImageNode,
    Missing,
    Mount,
    Plan,
    RunNode,
    ScratchNode,
    SecretMount,
    SshMount,
    TmpfsMount,
    Tree,
    TreeNode,
    WorkdirNode,
)

HOST = Platform("linux", "amd64")
DIFF_ID = "sha256:" + "1" * 64


def options(case: Mapping[str, Any]) -> PlanOptions:
    """The options of a case: `args`, `target`, `platforms`, `labels`, `contexts`, `network`, `allow`, `no_cache`,
    `cache_namespace`."""
    contexts = {name: ContextKind(**kind) for name, kind in case.get("contexts", {}).items()}
    no_cache = case.get("no_cache")
    return PlanOptions(
        host=HOST,
        build_args=case.get("args", {}),
        cache_namespace=case.get("cache_namespace", ""),
        platforms=tuple(parse_platform(text) for text in case.get("platforms", ())),
        target=case.get("target", ""),
        labels=case.get("labels", {}),
        contexts=contexts,
        no_cache=None if no_cache is None else frozenset(no_cache),
        network=case.get("network", "default"),
        allow=frozenset(case.get("allow", ())),
    )


def base(config: Mapping[str, Any], platform: Platform, os: str = "") -> ImageConfig:
    """A base image with one layer and the configuration given with Docker's keys. `os`: if it is not what was asked."""
    return ImageConfig(
        architecture=platform.architecture,
        os=os or platform.os,
        variant=platform.variant,
        rootfs=RootFS(diff_ids=[DIFF_ID]),
        config=msgspec.convert(config, ContainerConfig),
        history=[History(created_by="base")],
        created="2020-01-01T00:00:00Z",
    )


def make_plan(case: Mapping[str, Any]) -> tuple[Plan, list[str]]:
    """The plan of a case, and the images that were asked for on the way, in rounds. `images` gives their
    configurations by short name; every other image has an empty one. `os` gives the systems of those that are for
    another one than was asked."""
    text = case["dockerfile"]
    dockerfile = parse(text)
    images: dict[ImageKey, ImageConfig] = {}
    asked: list[str] = []
    while True:
        planned = plan(dockerfile, options(case), images, Locator("Dockerfile", text))
        if isinstance(planned, Plan):
            return planned, asked
        assert isinstance(planned, Missing)
        assert planned.images
        assert not planned.images & images.keys()
        for key in sorted(planned.images):
            short = key.reference.removeprefix("docker.io/library/").removesuffix(":latest")
            asked.append(short if key.platform == HOST else f"{short} {key.platform}")
            images[key] = base(case.get("images", {}).get(short, {}), key.platform, case.get("os", {}).get(short, ""))


def history(planned: Plan) -> list[str]:
    """`L created-by` for a line with a layer, `e created-by` for one without."""
    return [f"{'e' if line.node is None else 'L'} {line.created_by}" for line in planned.images[0].history]


def config(planned: Plan) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(encode(planned.images[0].config.config))
    return found


def describe(planned: Plan) -> list[str]:
    """A line for each node; what is usual (the host's platform, the default PATH, `/`) is left out."""
    return [f"{number} {_node(node)}" for number, node in enumerate(planned.nodes)]


def _node(node: AnyNode) -> str:
    text = _kind(node)
    if node.platform != HOST:
        text += f" for {node.platform}"
    return text + (" anew" if node.ignore_cache else "")


def _kind(node: AnyNode) -> str:
    if isinstance(node, ScratchNode):
        return "scratch"
    if isinstance(node, ImageNode):
        return f"image {node.image.reference}" + (f" in {node.image.layout}" if node.image.layout else "")
    if isinstance(node, TreeNode):
        return f"tree {node.context}"
    if isinstance(node, WorkdirNode):
        return f"workdir({node.parent}) {node.path}" + (f" user {node.user}" if node.user else "")
    if isinstance(node, CopyNode):
        return _copy(node)
    return _run(node)


def _run(node: RunNode) -> str:
    words = [f"run({node.parent})", *(_quoted(word) for word in node.argv)]
    words += [f"{name}={_quoted(value)}" for name, value in node.env if (name, value) != ("PATH", DEFAULT_PATH)]
    words += [f"proxy {name}={value}" for name, value in node.proxies]
    words += [f"user {node.user}"] if node.user else []
    words += [f"in {node.workdir}"] if node.workdir != "/" else []
    words += [f"network {node.network}"] if node.network != "default" else []
    words += [node.security] if node.security != "sandbox" else []
    words += [_mount(mount) for mount in node.mounts]
    words += [f"script {node.script[0]} {_quoted(node.script[1])}"] if node.script else []
    return " ".join(words)


def _copy(node: CopyNode) -> str:
    words = [f"copy({node.parent})", *(_source(source) for source in node.sources), "to", node.destination]
    words += [f"chown {node.chown}"] if node.chown else []
    if node.chmod is not None:
        words.append(f"chmod {node.chmod:o}" if isinstance(node.chmod, int) else f"chmod {node.chmod}")
    words += [name for name in ("link", "parents") if getattr(node, name)]
    words += [f"without {pattern}" for pattern in node.excludes]
    return " ".join(words)


def _source(source: CopySource) -> str:
    if isinstance(source, CopyInline):
        return f"<<{source.name} {_quoted(source.data)}"
    if isinstance(source, CopyFiles):
        text = f"{_tree(source.tree)}{source.path}"
        text += f"|{source.pattern}" if source.pattern is not None else ""
        text += f"!{source.required}" if source.required is not None else ""
        return text + (" unpacked" if source.unpack else "")
    if isinstance(source, CopyUrl):
        return f"url {source.url}" + (f" {source.checksum}" if source.checksum else "") + " unpacked" * source.unpack
    assert isinstance(source, CopyGit)
    return f"git {source.url}" + " with .git" * source.keep_git_dir


def _tree(tree: Tree) -> str:
    if isinstance(tree, FromNode):
        return f"{tree.node}:"
    return f"{tree.name or 'context'}:" if isinstance(tree, FromContext) else "nothing:"


def _mount(mount: Mount) -> str:
    if isinstance(mount, BindMount):
        return f"bind {_tree(mount.tree)}{mount.source} at {mount.target}" + " writable" * mount.writable
    if isinstance(mount, CacheMount):
        text = f"cache {mount.cache} {mount.sharing} from {_tree(mount.tree)}{mount.source} at {mount.target}"
        text += " read-only" * mount.read_only
        owner = (mount.mode, mount.uid, mount.gid)
        return text + (f" as {owner}" if owner != (None, None, None) else "")
    if isinstance(mount, TmpfsMount):
        return f"tmpfs {mount.size} at {mount.target}"
    assert isinstance(mount, (SecretMount, SshMount))
    name = mount.secret if isinstance(mount, SecretMount) else mount.agent
    text = f"{'secret' if isinstance(mount, SecretMount) else 'ssh'} {name} at {mount.target}"
    text += f" variable {mount.variable}" if isinstance(mount, SecretMount) and mount.variable else ""
    return text + f" {mount.mode:o} {mount.uid}:{mount.gid}" + " required" * mount.required


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if not text or any(c in text for c in ' "\n\t') else text
