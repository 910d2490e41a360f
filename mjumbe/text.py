"""Message texts: translations, what a text costs on the air, and which ones CouchDB takes.

Everything here is a pure function of its arguments; the built-in translations are read once from translations.json.
"""

import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

# GSM 03.38: the basic alphabet costs one septet a character, the extension table two (an escape and the character).
GSM_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_EXTENSION = frozenset("\f^{}\\[~]|€")

# What a message holds alone, and what each part holds when a six-byte header joins several.
GSM_SINGLE, GSM_JOINED = 160, 153
UCS2_SINGLE, UCS2_JOINED = 70, 67

ELLIPSIS = "..."  # three full stops, not "…": that character would turn a GSM-7 text into UCS-2, at twice the price

# Where a first word may end without a space behind it: "STOP, please", "stop!now".
WORD_ENDS = str.maketrans(dict.fromkeys(",;:!?،؛؟、，", " "))
MOST_FOLDED = 1000  # characters: ordering accents takes a time that grows with their square, minutes for a megabyte
TRIMMED_CATEGORIES = frozenset("PSC")  # punctuation, symbols, control: never the edge of a word

Translations = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Parts:
    """How a text travels: `units` are septets in GSM-7 and UTF-16 code units in UCS-2; `count` is what is paid for."""

    encoding: Literal["GSM-7", "UCS-2"]
    units: int
    count: int


def parts(text: str) -> Parts:
    """Encoding, length and number of parts of `text`; an empty text is still one SMS."""
    costs = _costs(text)
    gsm = _is_gsm(text)
    units = sum(costs)
    single, joined = (GSM_SINGLE, GSM_JOINED) if gsm else (UCS2_SINGLE, UCS2_JOINED)
    count = 1 if units <= single else sum(1 for _ in _breaks(costs, joined)) + 1
    return Parts("GSM-7" if gsm else "UCS-2", units, count)


def limit_parts(text: str, max_parts: int) -> str:
    """`text`, or what of it fits `max_parts` parts with its end replaced by "..." (CHT's multipart_sms_limit)."""
    if parts(text).count <= max_parts:
        return text
    costs = _costs(text)
    if max_parts == 1:
        capacity = GSM_SINGLE if _is_gsm(text) else UCS2_SINGLE
        kept = next(_breaks(costs, capacity))
    else:
        breaks = list(_breaks(costs, GSM_JOINED if _is_gsm(text) else UCS2_JOINED))
        kept = breaks[max_parts - 1]
    # Every character costs at least what a full stop costs, so the ellipsis fits where as many characters went.
    return text[: kept - len(ELLIPSIS)] + ELLIPSIS


def _is_gsm(text: str) -> bool:
    return GSM_BASIC.union(GSM_EXTENSION).issuperset(text)


def _costs(text: str) -> list[int]:
    """Units that each character of `text` takes in the encoding that the whole text needs."""
    if _is_gsm(text):
        return [2 if character in GSM_EXTENSION else 1 for character in text]
    return [2 if ord(character) > 0xFFFF else 1 for character in text]


def _breaks(costs: list[int], capacity: int) -> Iterator[int]:
    """Indices at which a new part begins; a character of two units is never split between two parts."""
    used = 0
    for index, cost in enumerate(costs):
        used += cost
        if used > capacity:
            yield index
            used = cost


def each_text(value: Any, change: Callable[[str], str]) -> Any:
    """A decoded JSON value with each text in it, and each name, changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [each_text(inner, change) for inner in value]
    if isinstance(value, dict):
        return {change(name): each_text(inner, change) for name, inner in value.items()}
    return value


def safe_text(text: str) -> str:
    """`text` with surrogate pairs joined and lone ones replaced: CouchDB refuses a whole bulk for one of them."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def shortened(text: str, most: int) -> str:
    """`text`, or as much of it as has `most` characters with "…" at the end: what others write may be megabytes."""
    return text if len(text) <= most else text[: most - 1] + "…"


def first_word(text: str) -> str:
    """The first word of `text`, folded for comparison: compatibility forms, case and punctuation do not count.

    Returns "" when there is no word. Compare keywords through this function on both sides.
    """
    for candidate in _folded(text.lstrip()[:MOST_FOLDED]).translate(WORD_ENDS).split():
        word = _trim(candidate)
        if word:
            return word
    return ""


def _folded(text: str) -> str:
    """Unicode's compatibility caseless form: folding can undo a normal form and a normal form a folding, so twice."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", text).casefold())
    return unicodedata.normalize("NFKC", folded.casefold())


def _trim(word: str) -> str:
    kept = [
        index for index, character in enumerate(word) if unicodedata.category(character)[0] not in TRIMMED_CATEGORIES
    ]
    return word[kept[0] : kept[-1] + 1] if kept else ""


def translate(key: str, locale: str, fallback: str, translations: Translations) -> str | None:
    """The text of `key` in `locale`, else in `fallback`, else in English; None when nobody has it.

    In each language a document's text (`translations`: locale → key → text) comes before the built-in one, and a
    regional locale (`sw-KE`) falls back to its language (`sw`).
    """
    for wanted in (locale, fallback, "en"):
        for name in dict.fromkeys((wanted, wanted.replace("_", "-").split("-")[0])):
            text = translations.get(name, {}).get(key) or builtin_translations().get(name, {}).get(key)
            if text:
                return text
    return None


def read_translations(doc: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Locale and texts of one of CHT's `messages-<locale>` documents; `custom` texts overrule `generic` ones.

    Entries that are not text are left out. Raises ValueError for a document of another type.
    """
    if doc.get("type") != "translations":
        raise ValueError(f"document {doc.get('_id')!r} has type {doc.get('type')!r}; expected 'translations'")
    locale = doc.get("code") or str(doc.get("_id", "")).removeprefix("messages-")
    texts: dict[str, str] = {}
    for field in ("values", "generic", "custom"):  # CHT before 3.4 kept one object, `values`
        entries = doc.get(field)
        if isinstance(entries, Mapping):
            texts.update({key: text for key, text in entries.items() if isinstance(text, str) and text})
    return str(locale), texts


@lru_cache(maxsize=1)
def builtin_translations() -> Translations:
    """The texts that mjumbe brings: locale → key → text."""
    loaded: dict[str, dict[str, str]] = json.loads(
        Path(__file__).with_name("translations.json").read_text(encoding="utf-8")
    )
    return loaded
