"""Which messages are reports by one of CHT's SMS forms."""

import pytest

from sentinel.forms import names_form


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("P 12 Baraka", True),
        ("p", True),
        (" P#12", True),
        ("P, 12", True),
        ("P-12", True),
        ("P; 12", True),
        ("1!P!12#Baraka", True),
        ("J1!p!12#Baraka", True),
        ("1!Q!P", False),
        ("P1!12!3", False),
        ("", False),
        ("!", False),
        ("Pole", False),
        ("Habari P", False),
        ("1!", False),
    ],
)
def test_names_form(text: str, named: bool) -> None:
    assert names_form(text, {"P": {}, "STOP": {}}) is named
    assert not names_form(text, {})
