"""Go templates: the forms that people use, and that nothing but a UsageError comes of what is wrong."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cli.template import Template
from builder.cli.template_values import MISSING, Duration, Map, Record, Slice, plain, text_of
from builder.errors import UsageError

DATA = Record(
    Config=Record(
        Env=["A=1", "B=2"],
        Labels={"a": "b", "dotted.key": "x"},
        Cmd=None,
        Ports={"80/tcp": {}, "443/tcp": {}},
    ),
    ID="sha256:abcdef",
    Size=12,
    Big=2.5,
    Nothing=None,
    Yes=True,
    List=[],
    Rows=[Record(Name="one", N=1), Record(Name="two", N=2)],
)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("", ""),
        ("plain } text", "plain } text"),
        ("{{.ID}}", "sha256:abcdef"),
        ("{{ .ID }}", "sha256:abcdef"),
        ("{{$.ID}}", "sha256:abcdef"),
        ("{{.Config.Env}}", "[A=1 B=2]"),
        ("{{.Config.Labels}}", "map[a:b dotted.key:x]"),
        ("{{.Config.Labels.a}}", "b"),
        ("{{.Config.Labels.none}}", "<no value>"),
        ("{{.Nothing}}", "<nil>"),
        ("{{.Yes}} {{.Big}} {{.List}}", "true 2.5 []"),
        ("{{json .Config.Labels}}", '{"a":"b","dotted.key":"x"}'),
        ("{{.ID | json}}", '"sha256:abcdef"'),
        ("{{json .Config.Cmd}}", "null"),
        ('{{index .Config.Labels "dotted.key"}}', "x"),
        ('{{index .Config.Labels "none"}}', ""),
        ("{{index .Config.Env 1}}", "B=2"),
        ("{{(index .Rows 1).Name}}", "two"),
        ('{{join .Config.Env ","}}', "A=1,B=2"),
        ('{{.Config.Env | len}} {{len .ID}} {{len "é"}}', "2 13 2"),
        ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=2\n"),
        ("{{range $i, $e := .Config.Env}}{{$i}}:{{$e}} {{end}}", "0:A=1 1:B=2 "),
        ("{{range $e := .Config.Env}}{{$e}}{{end}}", "A=1B=2"),
        ("{{range $port, $_ := .Config.Ports}}{{$port}} {{end}}", "443/tcp 80/tcp "),
        ("{{range .List}}x{{else}}none{{end}}", "none"),
        ("{{range .Rows}}{{.Name}}={{.N}},{{end}}", "one=1,two=2,"),
        ("{{range .Config.Env}}{{if eq . `B=2`}}{{break}}{{end}}{{.}}{{end}}", "A=1"),
        ("{{range .Config.Env}}{{if eq . `A=1`}}{{continue}}{{end}}{{.}}{{end}}", "B=2"),
        ("{{if .Nothing}}a{{else if eq .Size 12}}b{{else}}c{{end}}", "b"),
        ("{{if and .Yes (gt .Size 10)}}big{{end}}", "big"),
        ("{{if or .Nothing .List}}x{{else}}y{{end}}", "y"),
        ("{{if not .Config}}x{{else}}structures are true{{end}}", "structures are true"),
        ("{{with .Config}}{{.Env}}{{end}}", "[A=1 B=2]"),
        ("{{with .Nothing}}x{{else}}y{{end}}", "y"),
        ("{{$x := .Size}}{{$x}}{{$x = 3}}{{$x}}", "123"),
        ("{{/* a comment */}}a {{- /* trims */ -}} b", "ab"),
        ("a {{- .Size -}} b", "a12b"),
        ("a{{ -1 }}", "a-1"),
        ('{{printf "%-5s|%5d|%05d|%x|%q|%v%%" .ID 7 7 255 "a" .Yes}}', 'sha256:abcdef|    7|00007|ff|"a"|true%'),
        ('{{printf "%.3s" .ID}}', "sha"),
        ("{{slice .ID 7 9}} {{slice .ID 7}}", "ab abcdef"),
        ('{{split .ID ":" | json}} {{upper "ab"}} {{lower "AB"}} {{title "ab cd"}}', '["sha256","abcdef"] AB ab Ab Cd'),
        ('{{pad "x" 1 2}}| {{truncate .ID 6}}', " x  | sha256"),
        ('{{print "a" 1 2 "b"}} {{"a\\t\\"\\u00e9"}} {{`raw\\t`}}', 'a1 2b a\t"é raw\\t'),
        ("{{.Config.Env}}{{.Rows}}", "[A=1 B=2][{one 1} {two 2}]"),
        ("{{eq .Size 1 12}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{ge 1 2}}", "true true true true false"),
    ],
)
def test_renders(template: str, expected: str) -> None:
    assert Template(template).render(DATA) == expected


TYPED = Record(Labels=Map.of(None), Ports=Map.of({"80/tcp": Record()}, zero=Record()), Cmd=Slice.of(None), Env=Slice())


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.Labels}}{{.Cmd}}{{.Env}}", "map[][][]"),
        ("{{.}}", "{map[] map[80/tcp:{}] [] []}"),
        ('{{index .Labels "version"}}|{{.Labels.version}}', "|<no value>"),
        ('{{index .Ports "80/tcp"}}{{index .Ports "81/tcp"}}{{index .Ports `81/tcp` | json}}', "{}{}{}"),
        ("{{len .Labels}}{{len .Cmd}}{{len .Ports}}", "001"),
        ("{{json .}}", '{"Labels":null,"Ports":{"80/tcp":{}},"Cmd":null,"Env":[]}'),
        ("{{range .Cmd}}x{{else}}none{{end}}{{range .Labels}}x{{end}}{{with .Labels}}x{{end}}", "none"),
        ('{{join .Cmd ","}}{{slice .Cmd 0 0}}', "[]"),
        ("{{eq .Cmd nil}} {{ne .Labels nil}} {{eq .Env nil}} {{eq .Labels.none nil}}", "true false false true"),
    ],
)
def test_go_values_that_are_nil_have_their_type(template: str, expected: str) -> None:
    assert Template(template).render(TYPED) == expected


@pytest.mark.parametrize(
    ("nanoseconds", "text"), [(0, "0s"), (5, "5ns"), (1_500_000_000, "1.5s"), (-90_000_000_000, "-1m30s")]
)
def test_durations(nanoseconds: int, text: str) -> None:
    """Text as Go's, numbers to JSON and to what computes."""
    data = Record(D=Duration(nanoseconds))
    shown = Template('{{.D}}|{{json .D}}|{{printf "%d %v" .D .D}}|{{eq .D 5}}').render(data)
    assert shown == f"{text}|{nanoseconds}|{nanoseconds} {text}|{str(nanoseconds == 5).lower()}"


@pytest.mark.parametrize(
    ("template", "cause"),
    [
        ("{{.Foo}}", "there is no field 'Foo'"),
        ("{{.Nothing.Foo}}", "of nothing"),
        ("{{.ID.Foo}}", "there is no field 'Foo'"),
        ("{{", "not closed"),
        ("{{.ID", "not closed"),
        ("{{}}", "empty action"),
        ("{{end}}", "without a beginning"),
        ("{{else}}", "without a beginning"),
        ("{{if .ID}}", "without an end"),
        ("{{if .ID}}{{else}}{{else}}{{end}}", "second 'else'"),
        ("{{foo .ID}}", "no function 'foo'"),
        ('{{template "x"}}', "not supported"),
        ('{{define "x"}}{{end}}', "not supported"),
        ("{{.ID .Size}}", "take no arguments"),
        ("{{.ID | .Size}}", "only a function"),
        ("{{$x}}", "no variable $x"),
        ("{{index .Config.Env 9}}", "outside"),
        ("{{index .Config.Env `a`}}", "not a list's index"),
        ("{{index .Config `Env`}}", "not a structure"),
        ("{{join .ID}}", "arguments"),
        ("{{join .ID `,`}}", "needs a list"),
        ("{{split .Config.Env `=`}}", "arguments for split"),
        ("{{split .Nothing `=`}}", "arguments for split"),
        ("{{len .Size}}", "no length"),
        ("{{range .ID}}{{end}}", "cannot go over"),
        ("{{lt .ID 1}}", "cannot be compared"),
        ("{{eq .List .List}}", "cannot be compared"),
        ('{{printf "%d" .ID}}', "does not fit"),
        ('{{printf "%d"}}', "too few"),
        ('{{printf "%9999999d" .Size}}', "too wide"),
        ('{{printf "%.9999999f" .Big}}', "too wide"),
        ("{{slice .ID 5 2}}", "outside"),
        ("{{" + "(" * 500 + ".ID" + ")" * 500 + "}}", "nested too deeply"),
        ("{{break}}", "outside of a range"),
    ],
)
def test_refuses_with_the_reason(template: str, cause: str) -> None:
    with pytest.raises(UsageError) as caught:
        Template(template).render(DATA)
    assert cause in caught.value.cause


@given(st.text(alphabet="{}|()$.,:=- \"`'ablenifrgwthodjsx01\\/*%", max_size=60))
def test_any_text_renders_or_is_refused(text: str) -> None:
    for template in (text, "{{" + text + "}}", "{{if " + text + "}}{{end}}"):
        with contextlib.suppress(UsageError):
            assert isinstance(Template(template).render(DATA), str)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_json_of_anything_reads_back(value: Any) -> None:
    import json

    assert json.loads(Template("{{json .}}").render(value)) == value
    assert isinstance(text_of(value), str)


@given(st.lists(st.text(max_size=5)))
def test_range_visits_everything_in_order(values: list[str]) -> None:
    assert Template("{{range .}}<{{.}}>{{end}}").render(values) == "".join(f"<{value}>" for value in values)
    assert Template('{{join . "|"}}').render(values) == "|".join(values)


def test_json_leaves_out_the_empty_fields_of_a_structure() -> None:
    record = Record.of({"A": "", "B": 0, "C": [1]}, frozenset({"A", "C"}))
    assert plain({"x": record, "y": MISSING}) == {"x": {"B": 0, "C": [1]}, "y": None}
    assert Template("{{.A}}|{{json .}}").render(record) == '|{"B":0,"C":[1]}'
