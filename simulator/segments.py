"""How many parts a text takes on the air (3GPP TS 23.038, GSM 7 bit default alphabet, and UCS-2)."""

from __future__ import annotations

from collections.abc import Iterable

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = frozenset("\f^{}\\[~]|€")  # an escape and a character: two septets

_GSM_SINGLE, _GSM_PART = 160, 153
_UCS2_SINGLE, _UCS2_PART = 70, 67


def count_parts(text: str) -> int:
    """Number of SMS parts `text` needs, at least 1 (an empty text is still one message).

    A character of two units (an escaped septet pair, or a surrogate pair) is never split between two parts.
    """
    characters = set(text)
    if characters <= _BASIC:
        return 1 if len(text) <= _GSM_SINGLE else -(-len(text) // _GSM_PART)
    if characters <= _BASIC | _EXTENSION:
        return _pack((2 if character in _EXTENSION else 1 for character in text), _GSM_SINGLE, _GSM_PART)
    return _pack((2 if ord(character) > 0xFFFF else 1 for character in text), _UCS2_SINGLE, _UCS2_PART)


def _pack(widths: Iterable[int], single: int, part: int) -> int:
    total, parts, used = 0, 1, 0
    for width in widths:
        total += width
        if used + width > part:
            parts, used = parts + 1, 0
        used += width
    return 1 if total <= single else parts
