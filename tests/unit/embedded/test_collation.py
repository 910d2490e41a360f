"""View keys as bytes: their order against ICU's own, as V8 has it."""

from __future__ import annotations

import itertools
import json
import random

import pytest
from py_mini_racer import MiniRacer

from embedded.engine.collation import encode, group_prefix

ASCII = [chr(code) for code in range(1, 127)]
LETTERS = [*"aAbBzZ019 -_"]
LATIN = [*"abcdefghijklmnopqrstuvwxyzABC -'", *(chr(code) for code in range(0xC0, 0x100) if chr(code) not in "×÷")]
SCRIPTS = [*"abXY", *(chr(code) for code in range(0x400, 0x460)), *(chr(code) for code in range(0x1200, 0x1240))]
EXPANDED = [*"aeoAEOsS", *"æÆœŒßẞ"]
IGNORED = [*"abAá", "\u00ad", "\u200d", "\u2060", "\ufeff", "\x01"]
LAST = [*"a一", "\ue000", "\ufff0", "\ufffd", "\uffff", "\U000f0000"]
OTHERS = [*"ab1 ", *(chr(code) for code in range(0x1F600, 0x1F640)), "一", "\ufff0", "\uffff"]


@pytest.fixture(scope="module")
def icu():
    context = MiniRacer()
    context.eval(
        "const compare = new Intl.Collator('und').compare;"
        "function signs(text) { return JSON.stringify(JSON.parse(text).map(pair => Math.sign(compare(...pair)))); }"
    )
    yield lambda pairs: json.loads(context.call("signs", json.dumps(pairs)))
    context.close()


@pytest.mark.parametrize(
    "alphabet",
    [ASCII, LETTERS, LATIN, SCRIPTS, EXPANDED, IGNORED, LAST, OTHERS],
    ids=["ascii", "letters", "latin", "scripts", "expanded", "ignored", "last", "others"],
)
def test_strings_are_in_the_order_of_icu(icu, alphabet):
    choose = random.Random(1)

    def text() -> str:
        return "".join(choose.choices(alphabet, k=choose.randint(0, 5)))

    pairs = [(text(), text()) for _ in range(5000)]
    ours = [(encode(a) > encode(b)) - (encode(a) < encode(b)) for a, b in pairs]
    wrong = [pair for pair, sign, wanted in zip(pairs, ours, icu(pairs), strict=True) if sign != wanted]
    assert wrong == []


def test_numbers():
    numbers = [-(10**400), -1e308, -(2**60), -2, -1.5, -1e-300, 0, 1e-300, 1, 1.5, 2, 10, 2**60, 1e308, 10**400]
    shuffled = random.Random(2).sample(numbers, len(numbers))
    assert sorted(shuffled, key=encode) == numbers
    assert encode(1) == encode(1.0)
    assert encode(0.0) == encode(-0.0)


def test_nothing_is_a_beginning_of_something_else():
    """A value that was a prefix of another would put the other's rows into its ranges."""
    values = [None, False, True, 0, "", "a", "ab", "a\u0301", [], ["a"], ["a", None], [[]], {}, {"a": 1}, {"a": [1]}]
    for one, other in itertools.permutations(map(encode, values), 2):
        assert not other.startswith(one)


def test_halves_of_surrogate_pairs_have_a_place():
    assert encode("a") < encode("\ud83d") < encode(["a"])


@pytest.mark.parametrize(
    ("key", "level", "member", "inside"),
    [
        (["a", 1], 1, ["a", 2, 3], True),
        (["a", 1], 1, ["a"], True),
        (["a"], 1, ["a", 2], True),
        (["a", 1], 1, ["aa"], False),
        (["a", 1], 2, ["a", 10], False),
        ("text", 1, "text", True),
    ],
)
def test_group_prefix(key, level, member, inside):
    assert encode(member).startswith(group_prefix(key, level)) is inside
