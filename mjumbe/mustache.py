"""Texts filled from templates: Mustache by pystache, with values written as CHT's mustache.js writes them, and bounds.

Whoever may write a document may put a template into it, and must not hold up everybody's messages.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import pystache
from pystache.parser import ParsingError
from pystache.renderengine import RenderEngine

MOST_TEMPLATE = 5_000  # characters with tags among them: more than any message has, and pystache needs their square
MOST_WRITTEN = 50_000  # characters that take the place of tags; a message has 39,015 at most
MOST_ENTRIES = 2_000  # of lists, that sections are filled for
LAST_WHOLE = 1e21  # from here on JavaScript writes numbers with an exponent


class TemplateError(ValueError):
    """A template that is not Mustache, or writes too much; the message says what is wrong with it, without the text."""


def check(template: str) -> None:
    """Raise TemplateError when `template` is not valid Mustache, or leaves a section or a tag open.

    `render` takes what is open at the end for text, and people would read it; CHT's Mustache refuses it.
    """
    _parsed(template, closed=True)
    if "{{" in template.rpartition("}}")[2] and "{{=" not in template:  # that one chooses other delimiters
        raise TemplateError("the template is not valid Mustache: its last {{ has no }} behind it; close each tag")


def render(template: str, context: Mapping[str, Any]) -> str:
    """The template filled from `context` (nested paths with dots); missing names become empty.

    A function in the context is given what the section of its name holds, unfilled; what it returns is written as it
    is. Raises TemplateError for a template that cannot be parsed, or that writes too much.
    """
    try:
        return str(_Renderer().render(_parsed(template), dict(context)))
    except RecursionError:
        raise TemplateError("the template has too many sections within each other") from None


@lru_cache(maxsize=100)  # a long one may be half a megabyte when it is parsed
def _parsed(template: str, *, closed: bool = False) -> Any:
    if "{{" in template and len(template) > MOST_TEMPLATE:
        raise TemplateError(f"the template has {len(template)} characters; expected {MOST_TEMPLATE} at most")
    try:
        return pystache.parse(template, raise_on_mismatch=closed)
    except ParsingError as error:
        raise TemplateError(f"the template is not valid Mustache: {error}; close each section that you open") from error
    except (ValueError, IndexError):  # of pystache's own, for delimiters that are none
        raise TemplateError("the template is not valid Mustache: {{= takes two delimiters, as in {{=<% %>=}}") from None


class _Renderer(pystache.Renderer):  # type: ignore[misc]  # pystache has no types
    """Mustache for SMS: nothing HTML-escaped, missing values empty, and no partials (pystache would read files)."""

    def __init__(self) -> None:
        super().__init__(escape=lambda text: text, missing_tags="ignore", partials={})

    def str_coerce(self, val: object) -> str:
        return _as_javascript(val)

    def _make_render_engine(self) -> RenderEngine:
        plain = super()._make_render_engine()
        return _Engine(plain.literal, plain.escape, plain.resolve_context, plain.resolve_partial, plain.to_str)


class _Engine(RenderEngine):  # type: ignore[misc]
    """pystache's, which counts, and takes what a function returns for a text: pystache would read it as a template."""

    def __init__(self, *functions: Callable[..., Any]) -> None:
        super().__init__(*functions)
        self._characters = MOST_WRITTEN
        self._entries = MOST_ENTRIES

    def fetch_string(self, context: Any, name: str) -> str:
        return self._count(super().fetch_string(context, name))

    def fetch_section_data(self, context: Any, name: str) -> Any:
        data = super().fetch_section_data(context, name)
        self._entries -= len(data)
        if self._entries < 0:
            raise TemplateError(f"the template goes through more than {MOST_ENTRIES} entries of lists")
        return data

    def _render_value(self, val: Any, context: Any, delimiters: Any = None) -> str:
        return self._count(str(val))

    def _count(self, text: str) -> str:
        self._characters -= len(text)
        if self._characters < 0:
            raise TemplateError(f"the template writes more than {MOST_WRITTEN} characters")
        return text


def _as_javascript(value: object) -> str:
    """A value of JSON as JavaScript writes it: nothing for null, `true`, 37 for 37.0, lists with commas."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float() if value.is_integer() and abs(value) < LAST_WHOLE:
            return str(int(value))
        case list():
            return ",".join(map(_as_javascript, value))
        case dict():
            return "[object Object]"
    return str(value)
