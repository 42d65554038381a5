"""What a build says before it runs anything is searched for its secrets: by builds, and by plans of them.

A build searches its layers, too (`secret_search.search_layers`, and while it writes them); a plan reads none.
"""

from __future__ import annotations

from builder.api.inputs import Inputs
from builder.api.options import BuildOptions
from builder.plan.locate import Locator
from builder.plan.steps import Plan
from builder.progress import Reporter, Warned
from builder.solver.secret_search import search_dockerfile, search_plan
from builder.solver.secrets import Guard


def search_inputs(guard: Guard, inputs: Inputs, report: Reporter) -> None:
    """Search the Dockerfile, and warn of the secrets that nothing is searched for. Raises SecretLeak."""
    for secret in guard.unsearched:
        report(Warned(f"the value of {secret} is too short to be searched for: it may stand anywhere by chance"))
    search_dockerfile(guard, inputs.name, inputs.text)


def search_planned(guard: Guard, planned: Plan, options: BuildOptions, locate: Locator) -> None:
    """Search the steps, with what arguments made of them, and what will be said of the images. Raises SecretLeak."""
    search_plan(guard, planned, locate)
    for annotation in (*options.annotations, *(one for output in options.outputs for one in output.annotations)):
        guard.check({annotation.key: annotation.value}, "the annotations")
    if options.attestations:  # the provenance names them all
        guard.check(dict(options.build_args), "the build arguments")
