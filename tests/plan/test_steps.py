"""What a plan's nodes need, and which contexts they read."""

from __future__ import annotations

from tests.plan.support import make_plan

DOCKERFILE = """\
FROM scratch AS one
COPY a /
FROM scratch AS two
RUN --mount=from=one,target=/one --mount=target=/c --mount=type=tmpfs,target=/t true
FROM other
COPY --from=two / /
COPY --from=named b /
"""


def test_what_is_needed_and_read() -> None:
    planned, _ = make_plan({"dockerfile": DOCKERFILE, "contexts": {"other": {}, "named": {}}})
    scratch, copy, run, other, of_two, of_named = range(6)
    assert [node.needs() for node in planned.nodes] == [(), (scratch,), (scratch, copy), (), (other, run), (of_two,)]
    assert [node.contexts() for node in planned.nodes] == [[], [""], [""], ["other"], [], ["named"]]
    assert planned.needed([]) == []
    assert planned.needed([other]) == [other]
    assert planned.needed([copy, run, run]) == [scratch, copy, run]
    assert [image.node for image in planned.images] == [of_named]
    assert planned.needed([of_named]) == list(range(6))
