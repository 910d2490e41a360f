"""Templates: what they come out as, and what is refused."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mjumbe import mustache
from mjumbe.mustache import TemplateError, render

RENDERED = [
    ("Hello {{name}}", {"name": "Aïsha & <Juma>"}, "Hello Aïsha & <Juma>"),
    ("{{{a}}}{{&a}}", {"a": "'"}, "''"),
    ("{{contact.parent.name}}", {"contact": {"parent": {"name": "Kilifi"}}}, "Kilifi"),
    ("[{{missing}}{{a.b.c}}{{n}}]", {"a": {"b": None}, "n": None}, "[]"),
    ("{{n}} {{f}} {{yes}} {{no}}", {"n": 0, "f": 1.5, "yes": True, "no": False}, "0 1.5 true false"),
    ("{{#items}}{{n}},{{/items}}", {"items": [{"n": 1}, {"n": 2}]}, "1,2,"),
    ("{{^items}}none{{/items}}", {"items": []}, "none"),
    ("{{#a}}{{b}}{{/a}}", {"a": {"b": "x"}}, "x"),
    ("{{! a comment }}x", {}, "x"),
    ("{{a}}", {"a": "{{b}}", "b": "no"}, "{{b}}"),
    ("[{{> ../../etc/passwd}}]", {}, "[]"),
    ("{{name.upper}}{{name.__class__}}", {"name": "x"}, ""),
    ("50% {not} }} {{", {}, "50% {not} }} {{"),
    ("", {}, ""),
    # Values as JavaScript writes them.
    ("{{a}} {{b}} {{c}}", {"a": 37.0, "b": 1767214800000.0, "c": -0.0}, "37 1767214800000 0"),
    ("{{a}} {{b}}", {"a": 5e20, "b": 1e21}, "500000000000000000000 1e+21"),
    ("{{a}}", {"a": [1, [None, 2.0], [], {}]}, "1,,2,,[object Object]"),
    ("{{{a}}}", {"a": {"phone": "+254711000111"}}, "[object Object]"),
    # What a function returns is no template.
    ("{{#f}}{{a}}{{/f}} {{f}}", {"f": lambda within="": f"<{within}>{{{{#", "a": 1}, "<{{a}}>{{# <>{{#"),
    ("{{#f}}x{{/f}}", {"f": lambda within: f"{within} {{{{/f}}}}"}, "x {{/f}}"),
]


@pytest.mark.parametrize(("template", "context", "expected"), RENDERED)
def test_render(template: str, context: dict[str, Any], expected: str) -> None:
    assert render(template, context) == expected


def test_no_partial_reads_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there.mustache").write_text("its content")
    monkeypatch.chdir(tmp_path)
    assert render("[{{> there}}]", {}) == "[]"


@pytest.mark.parametrize("template", ["{{#a}}x{{/b}}", "x{{/a}}"])
def test_a_broken_template_is_named(template: str) -> None:
    with pytest.raises(TemplateError, match="not valid Mustache"):
        render(template, {})
    with pytest.raises(TemplateError):
        mustache.check(template)


@pytest.mark.parametrize(
    "template", ["{{#x}} hello", "{{^x}}{{y}}", "Hi {{name and more", "{{a}} {{", "{{! a", "{{{b}"]
)
def test_what_is_left_open_is_refused_where_it_is_written_and_rendered_where_it_is_there(template: str) -> None:
    with pytest.raises(TemplateError, match="not valid Mustache"):
        mustache.check(template)
    assert isinstance(render(template, {}), str)


@pytest.mark.parametrize(
    "template",
    [
        *(template for template, _, _ in RENDERED if not template.endswith("{{")),
        *("{{}}", "{{#a}}{{#b}}{{/b}}{{/a}}", "{{#date}}{{due}}{{/date}}", "{{=<% %>=}}<%a%> {{", "{ {a} }", "}}"),
    ],
)
def test_what_is_closed_is_accepted(template: str) -> None:
    mustache.check(template)


@given(st.text(alphabet="{}#/^&>!=<% ab.", max_size=40))
def test_any_text_renders_or_is_refused(template: str) -> None:
    with contextlib.suppress(TemplateError):
        assert isinstance(render(template, {"a": {"b": "x"}}), str)


@pytest.mark.parametrize("template", ["{{=a=}}", "{{= a =}}"])
def test_delimiters_that_are_none_are_named(template: str) -> None:
    with pytest.raises(TemplateError, match="two delimiters"):
        render(template, {})


LIST = {"l": [1] * 100, "long": "x" * 1000}


@pytest.mark.parametrize(
    ("template", "context", "why"),
    [
        ("{{" * 90_000, {}, "has 180000 characters; expected 5000 at most"),
        ("{{a}}" + "x" * 4996, {}, "has 5001 characters"),
        ("{{#l}}" * 3 + "{{/l}}" * 3, LIST, "more than 2000 entries"),
        ("{{#l}}{{long}}{{/l}}", LIST, "more than 50000 characters"),
        ("{{#l}}{{#f}}{{/f}}{{/l}}", {**LIST, "f": lambda within: "x" * 1000}, "more than 50000 characters"),
        ("{{#a}}" * 400 + "{{/a}}" * 400, {"a": True}, "too many sections within each other"),
    ],
    ids=["long", "a little long", "loops", "long values", "long answers", "deep"],
)
def test_what_would_hold_up_others_is_refused(template: str, context: dict[str, Any], why: str) -> None:
    with pytest.raises(TemplateError, match=why):
        render(template, context)


@pytest.mark.parametrize(
    ("template", "context", "length"),
    [
        ("x" * 100_000, {}, 100_000),  # no tags in it
        ("{{a}}" + "x" * 4995, {}, 4995),
        ("{{#l}}{{#l}}x{{/l}}{{/l}}", {"l": [1] * 40}, 1600),
        ("{{#l}}x{{/l}}", {"l": [1] * 2_000}, 2_000),
        ("{{#l}}{{long}}{{/l}}", {"l": [1] * 50, "long": "x" * 1000}, 50_000),
    ],
    ids=["no tags", "template", "loops", "one loop", "values"],
)
def test_what_is_long_enough_for_any_message_is_filled(template: str, context: dict[str, Any], length: int) -> None:
    assert len(render(template, context)) == length
