"""The caches that a build names: read before its steps are looked up, written when its outputs are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from builder.api.options import BuildOptions
from builder.api.special import Special
from builder.errors import UsageError
from builder.export.cache import export_cache, inline_annotation
from builder.export.cache_steps import SolvedSteps
from builder.oci import reference
from builder.oci.reference import Reference
from builder.plan.steps import Plan
from builder.progress import Warned
from builder.solver.annotations import Annotation
from builder.solver.bases import Bases
from builder.solver.cache_import import Cache, LayoutCache, RegistryCache, import_caches
from builder.solver.environment import Environment
from builder.solver.solve import Root
from builder.store.builds import BuiltStep


class Caches:
    """The caches of one build. Raises UsageError where they do not go together with what else is asked for."""

    def __init__(self, options: BuildOptions, special: Special, environment: Environment, bases: Bases) -> None:
        self._options = options
        self._environment = environment
        self._bases = bases
        self._lineage = ""
        self._inline = special.inline_cache and _makes_image(options) and not options.squash
        for target in options.cache_to:
            if target.inline:
                _check_inline(options)
                self._inline = True
        self._sources = tuple(source for source in options.cache_from if not source.elsewhere)
        self._targets = tuple(target for target in options.cache_to if not (target.inline or target.elsewhere))
        for option, caches in (("--cache-from", options.cache_from), ("--cache-to", options.cache_to)):
            for kind in dict.fromkeys(cache.elsewhere for cache in caches if cache.elsewhere):
                environment.report(
                    Warned(
                        f"{option} type={kind} is not supported, and the build goes on without it; use"
                        " type=registry,ref=NAME, or type=local with a directory that your CI system keeps"
                    )
                )

    def read(self, lineage: str) -> None:
        """Look steps up in these caches too from now on. What cannot be read is warned of."""
        self._lineage = lineage
        if self._sources:
            caches: list[Cache] = [
                LayoutCache(source.path, source.tag, source.digest)
                if source.reference is None
                else RegistryCache(self._bases.session, source.reference)
                for source in self._sources
            ]
            self._environment.cache.external = import_caches(caches, self._environment.report, lineage)

    def annotations(self, planned: Plan, roots: Mapping[int, Root]) -> tuple[Annotation, ...]:
        """What an inline cache adds to the image's manifest."""
        return (inline_annotation(self._steps(planned, roots)),) if self._inline else ()

    def write(self, planned: Plan, roots: Mapping[int, Root], steps: Sequence[BuiltStep] = ()) -> None:
        """Write the caches, after the outputs, with what other machines compare their `steps` with. Raises
        BuilderError."""
        for target in self._targets:
            export_cache(target, msgspec.structs.replace(self._steps(planned, roots), steps=tuple(steps)))

    def _steps(self, planned: Plan, roots: Mapping[int, Root]) -> SolvedSteps:
        own = [roots[image.node].layers[len(image.config.rootfs.diff_ids or ()) :] for image in planned.images]
        return SolvedSteps(
            store=self._environment.store,
            cache=self._environment.cache,
            lineage=self._lineage,
            results=tuple(dict.fromkeys(layer for layers in own for layer in layers)),
            pushed=_pushed(self._options),
            session=self._bases.session,
            report=self._environment.report,
            guard=self._environment.guard,
        )


def _makes_image(options: BuildOptions) -> bool:
    return not options.outputs or any(output.holds_image for output in options.outputs)


def _check_inline(options: BuildOptions) -> None:
    if not _makes_image(options):
        raise UsageError(
            "--cache-to type=inline needs an output with an image", remedy="add --output type=image, or --push"
        )
    if options.squash:
        raise UsageError(
            "an image that is squashed has no layers of steps for --cache-to type=inline",
            remedy="use --cache-to type=registry,ref=…",
        )


def _pushed(options: BuildOptions) -> tuple[Reference, ...]:
    names = [name for output in options.outputs if output.push for name in (output.names or options.tags)]
    return tuple(reference.parse(name) for name in names)
