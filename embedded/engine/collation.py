"""View keys as bytes that compare, byte by byte, in CouchDB's order, so that a key range is a range of an SQL index.

CouchDB orders JSON values null < false < true < numbers < strings < arrays < objects (docs.couchdb.org, "Views
Collation"), and strings with ICU's root collation. The order of strings is asked of V8's own ICU (`Intl.Collator`),
once a process, so it is ICU's order and not a copy of a table; it is exact for ASCII and for letters with accents.
Three things are approximations: ligatures other than those in `EXPANSIONS`, characters outside the ranges in
`_ORDER_SCRIPT` (by code point, after all letters), and differences that ICU makes only between compatibility forms.

A string is written as three levels, as in the Unicode Collation Algorithm: primary weights (which letter), zero,
secondary weights (which accent), zero, tertiary weights (which case), zero. Weights equal to the lowest are left off
the end of the last two levels, so a plain lower-case string costs its length and four bytes.
"""

from __future__ import annotations

import json
import struct
import unicodedata
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from py_mini_racer import MiniRacer

# Sort keys are stored in index files. They depend on the ICU inside V8, so a new mini-racer rebuilds the indexes.
COLLATION_VERSION = f"1/{version('mini-racer')}"

# ASCII characters that have a weight, in ICU's root order; both cases of a letter share a primary weight. Control
# characters are ignored by ICU, except the white space at the start of this list.
ASCII_ORDER = "\t\n\x0b\x0c\r _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789abcdefghijklmnopqrstuvwxyz"

# Letters that ICU treats as two. (Their own, third-level, difference from the two letters is kept.)
EXPANSIONS = {"æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ß": "ss", "ẞ": "SS"}

_FIRST = 4  # the primary weight of the first ASCII character; every second value is a gap for characters between two
_COMMON = 1  # the secondary and tertiary weight of a plain, lower-case letter
_UPPER = 0x40  # the tertiary weight of a capital
_EXPANDED = 0x50  # the tertiary weight of the two halves of an expanded letter
_HAN = 0xFB  # lead bytes for characters ordered by code point
_OTHER = 0xFC
_LAST = 0xFE  # U+FFFD to U+FFFF, which ICU puts after everything

_PRIMARY = {char: _FIRST + 2 * rank for rank, char in enumerate(ASCII_ORDER)}
_ASCII_PRIMARY = bytes(_PRIMARY.get(chr(code).lower(), 0) for code in range(128)) + bytes(128)
_ASCII_IGNORED = bytes(code for code in range(128) if chr(code).lower() not in _PRIMARY)
_ASCII_TERTIARY = bytes(_UPPER if chr(code).isupper() else _COMMON for code in range(128)) + bytes(128)

NULL, FALSE, TRUE, NUMBER, STRING, ARRAY, OBJECT = (bytes([tag]) for tag in range(1, 8))
END = b"\x00"
# Greater than every key that begins with the bytes before it, because no key contains this byte at a value's start.
AFTER = b"\xff"

# Characters in ICU's order, grouped: [[[same letter and accent, …], [other accent, …]], [next letter …], …].
# Combining marks have no primary weight and come first, in one group.
_ORDER_SCRIPT = r"""
(() => {
  const ranges = [[0x80, 0x33ff], [0xa000, 0xabff], [0xf900, 0xfffc], [0x1f000, 0x1fbff]];
  const by = sensitivity => new Intl.Collator("und", {sensitivity}).compare;
  const base = by("base"), accent = by("accent"), full = by("variant");
  const chars = [];
  for (let code = 1; code < 0x80; code++) chars.push(String.fromCharCode(code));
  for (const [from, to] of ranges)
    for (let code = from; code <= to; code++) {
      const char = String.fromCodePoint(code);
      if (/^[^\p{Cn}\p{Cs}\p{Co}\p{Ideographic}]$/u.test(char) && char.normalize("NFD") === char) chars.push(char);
    }
  chars.sort((a, b) => base(a, b) || accent(a, b) || full(a, b));
  const groups = [];
  let previous = null;
  for (const char of chars) {
    if (full(char, "") === 0) continue;
    if (previous === null || base(previous, char) !== 0) groups.push([[char]]);
    else if (accent(previous, char) !== 0) groups.at(-1).push([char]);
    else groups.at(-1).at(-1).push(char);
    previous = char;
  }
  return JSON.stringify([base("\u0301", "") === 0, groups]);
})()
"""

Weights = tuple[bytes, int, int]


@lru_cache(maxsize=1)
def _weights() -> dict[str, Weights]:
    """(primary bytes, secondary, tertiary) of every character that ICU was asked about, ASCII included."""
    context = MiniRacer()
    marks_first, groups = json.loads(str(context.eval(_ORDER_SCRIPT)))
    context.close()
    weights: dict[str, Weights] = {}
    lead, between = _FIRST - 1, 0
    for number, group in enumerate(groups):
        ascii_members = [char for same in group for char in same if char.lower() in _PRIMARY]
        if number == 0 and marks_first:
            primary = b""
        elif ascii_members:
            lead, between = _PRIMARY[ascii_members[0].lower()], 0
            primary = bytes([lead])
        else:
            primary = bytes([lead | 1]) + struct.pack(">H", between)
            between += 1
        _weigh_group(weights, group, primary)
    return weights


def _weigh_group(weights: dict[str, Weights], group: list[list[str]], primary: bytes) -> None:
    """Number the accents of one letter from the plain one upwards, and the forms of each accent within it."""
    plain = next((rank for rank, same in enumerate(group) if any(char.isascii() for char in same)), 0)
    for rank, same in enumerate(group):
        secondary = min(_COMMON + abs(rank - plain) + (0 if primary else 1), 255)
        for form, char in enumerate(same):
            if char.isascii():
                tertiary = _ASCII_TERTIARY[ord(char)]
            else:
                tertiary = min(_COMMON + form if form < 8 else _UPPER + form, 255)
            weights[char] = (primary, secondary, tertiary)


def _weigh(char: str) -> Weights:
    """The weights of one character of a normalised string; characters that ICU ignores weigh nothing."""
    known = _weights().get(char)
    if known is not None:
        return known
    code = ord(char)
    if code < 0x20 or 0x7F <= code < 0xA0 or unicodedata.category(char) == "Cf":
        return b"", 0, 0
    if code >= 0xFFFD and code <= 0xFFFF:
        lead = _LAST
    elif 0x3400 <= code <= 0x9FFF or 0x20000 <= code <= 0x3FFFF:
        lead = _HAN
    else:
        lead = _OTHER
    return bytes([lead]) + code.to_bytes(3, "big"), _COMMON, _COMMON


def _encode_string(text: str) -> bytes:
    if text.isascii():
        raw = text.encode()
        cases = raw.translate(_ASCII_TERTIARY, _ASCII_IGNORED).rstrip(b"\x01")
        return b"".join((STRING, raw.translate(_ASCII_PRIMARY, _ASCII_IGNORED), b"\x00\x00", cases, END))
    primaries, secondaries, tertiaries = bytearray(), bytearray(), bytearray()
    for char in unicodedata.normalize("NFD", text):
        expansion = EXPANSIONS.get(char)
        for part in expansion or char:
            primary, secondary, tertiary = _weigh(part)
            primaries += primary
            if secondary:
                secondaries.append(secondary)
                tertiaries.append(_EXPANDED + (tertiary == _UPPER) if expansion else tertiary)
    levels = bytes(secondaries).rstrip(b"\x01"), bytes(tertiaries).rstrip(b"\x01")
    return b"".join((STRING, bytes(primaries), b"\x00", levels[0], b"\x00", levels[1], END))


def _encode_number(number: float) -> bytes:
    """The IEEE 754 bits, turned so that they compare as bytes. Whole numbers beyond a double become the nearest one."""
    try:
        value = float(number) + 0.0  # turns -0.0 into 0.0
    except OverflowError:
        value = float("inf") if number > 0 else float("-inf")
    bits: int = struct.unpack(">Q", struct.pack(">d", value))[0]
    bits = ~bits & 0xFFFFFFFFFFFFFFFF if bits >> 63 else bits | 1 << 63
    return NUMBER + bits.to_bytes(8, "big")


def encode(value: Any) -> bytes:
    """A JSON value as bytes; `encode(a) < encode(b)` exactly when CouchDB puts a before b."""
    if isinstance(value, str):
        return _encode_string(value)
    if value is None:
        return NULL
    if isinstance(value, bool):
        return TRUE if value else FALSE
    if isinstance(value, int | float):
        return _encode_number(value)
    if isinstance(value, list):
        return ARRAY + b"".join(map(encode, value)) + END
    return OBJECT + b"".join(_encode_string(name) + encode(member) for name, member in value.items()) + END


def group_prefix(key: Any, level: int) -> bytes:
    """The bytes with which every key begins that `group_level=level` puts together with `key`."""
    if isinstance(key, list) and len(key) >= level:
        return encode(key[:level])[:-1]
    return encode(key)
