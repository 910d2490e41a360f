"""Parts of a text on the air."""

import pytest

from simulator.segments import count_parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ", 1),
        ("€" * 80, 1),  # two septets each
        ("€" * 81, 2),
        ("a" * 152 + "€" + "a" * 152, 3),  # the escaped character does not fit in the first part's last septet
        ("a" * 151 + "€" + "a" * 153, 2),
        ("ü" * 160, 1),
        ("ç" * 70, 1),  # only the capital is in GSM-7
        ("ç" * 71, 2),
        ("ж" * 70, 1),
        ("ж" * 134, 2),
        ("ж" * 135, 3),
        ("a\u00a0" + "a" * 68, 1),  # one non-breaking space makes it UCS-2
        ("a\u00a0" + "a" * 69, 2),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
        ("😀" * 66, 2),  # 33 pairs a part: the 67th unit stays empty
        ("😀" * 67, 3),
    ],
)
def test_count_parts(text: str, parts: int) -> None:
    assert count_parts(text) == parts
