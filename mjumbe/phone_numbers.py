"""Phone numbers: one spelling for each, which ones are never written to, and how they appear in logs."""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import phonenumbers
from phonenumbers import NumberParseException, ValidationResult

from mjumbe.settings import Settings

# What people write into a number besides digits. Letters mean a sender id ("SAFARICOM"), which phonenumbers would take
# for a vanity number; commas, semicolons and hashes mean extensions, or several numbers.
WRITTEN = re.compile(r"\(?\+?[\d\s().\-‐-―/\u00a0]+")
FRACTION = re.compile(r"^(\d+)\.0$")  # some programs' JSON has every number as 254711000111.0
INTERNATIONAL_PREFIX = re.compile(r"00+(?=[1-9])")  # 00 in most countries, 000 in Kenya, Uganda and Tanzania
SEVERAL = re.compile(r"[,;]")  # what services and phones part recipients by
SHOWN_DIGITS = 3
ENDING_DIGITS = 7  # as in ddocs/medic/mjumbe/views/messages/map.js


@dataclass(frozen=True)
class Refusal:
    """Why nothing is sent to a number; `reason` is a sentence for people, without the number."""

    code: Literal["several", "gateway_number", "too_short", "alphas", "deny_list"]
    reason: str


@lru_cache(maxsize=10_000)  # parsing takes 0.1 ms, and a message's number is asked for several times
def normalise(number: str, default_country_code: str) -> str | None:
    """`number` in E.164 (`+254711000111`), None for what is no subscriber's number: short codes, sender names.

    Without a plus or an international prefix it belongs to the country with calling code `default_country_code`, or,
    if it is too long for that, to the country whose code it begins with.
    """
    # Numbers copied from a phone's contacts come within marks that nobody sees (U+202A … U+202C).
    seen = "".join(character for character in number if unicodedata.category(character) != "Cf")
    written = seen.strip().replace("＋", "+")
    if not WRITTEN.fullmatch(written):
        return None
    digits = re.sub(r"\D", "", FRACTION.sub(r"\1", written))
    if "+" in written:
        return _e164("+" + digits)
    international = INTERNATIONAL_PREFIX.match(digits)
    if international:
        return _e164("+" + digits[international.end() :])
    region = phonenumbers.region_code_for_country_code(int(default_country_code))
    return _e164(digits, region) or (_e164("+" + digits) if _is_too_long(digits, region) else None)


def _is_too_long(digits: str, region: str) -> bool:
    """Whether this is too long for the region. One that is too short is nobody's number: `97123456`, as they were in
    Benin before 2024, read with its first digits as a country's code, would be written to in the Emirates."""
    try:
        reason = phonenumbers.is_possible_number_with_reason(phonenumbers.parse(digits, region))
    except NumberParseException:
        return True  # a country that there is not, or more digits than any number has
    return reason in (ValidationResult.TOO_LONG, ValidationResult.INVALID_LENGTH)


def _e164(number: str, region: str | None = None) -> str | None:
    try:
        parsed = phonenumbers.parse(number, region)
    except NumberParseException:
        return None
    # Judged by its length alone: networks open ranges of numbers faster than phonenumbers learns of them.
    if phonenumbers.is_possible_number_with_reason(parsed) != ValidationResult.IS_POSSIBLE:
        return None
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


def canonical(number: str, default_country_code: str) -> str:
    """`number` as it is stored and compared: E.164 where it is a number, else as it came, without outer spaces."""
    return normalise(number, default_country_code) or number.strip()


def ending(number: str) -> str:
    """What a number ends in, however it is spelt: by it the view mjumbe/messages lists a person's messages, and those
    of others whose number ends alike."""
    digits = re.sub(r"[^0-9]", "", number)
    return digits[-ENDING_DIGITS:] if len(digits) >= ENDING_DIGITS else number


def masked(number: str) -> str:
    """`number` for logs: all but its last three characters hidden, and all of what is no longer than that."""
    shown = number[-SHOWN_DIGITS:] if len(number) > SHOWN_DIGITS else ""
    return "*" * (len(number) - len(shown)) + shown


def replace_prefix(number: str, match: str, replace: str) -> str:
    """`number` with `replace` in place of `match` at its beginning (CHT's outgoing_phone_replace)."""
    return replace + number.removeprefix(match) if match and number.startswith(match) else number


def number_to_send_to(written: str, settings: Settings) -> str:
    """The number that a message to `written` goes to, with the settings' replacement of its beginning.

    Normalised before, so that every spelling is replaced, and after, as CHT does: services answer by that number, and
    people who opted out are known by it.
    """
    country, replacement = settings.default_country_code, settings.outgoing_phone_replace
    number = canonical(written, country)
    if replacement is None:
        return number
    return canonical(replace_prefix(number, replacement.match, replacement.replace), country)


def refusal(number: str, settings: Settings) -> Refusal | None:
    """Why `number` must not be written to, None when it may be.

    The rules are those of CHT's isOutgoingAllowed: our own number in any spelling, the shortest length, letters, and
    the deny list's beginnings in any case, with outer spaces ignored everywhere; the deny list looks at the number in
    full, too, since authors write it in any spelling. An empty number is not refused here.
    One of ours comes before them: several numbers in one field would all be written to, past the opt-outs of each, and
    again at every attempt, as the service's answer names none that is spelt like the whole field.
    """
    sanitized = number.strip().lower()
    if not sanitized:
        return None
    if SEVERAL.search(sanitized):
        return Refusal("several", "The recipient is not one number; give each its own message.")
    if _same(settings.gateway_number, number, settings.default_country_code):
        return Refusal("gateway_number", "The recipient is gateway_number, our own number.")
    shortest = settings.outgoing_deny_shorter_than
    if len(sanitized) < shortest:
        return Refusal(
            "too_short", f"The number has {len(sanitized)} characters; outgoing_deny_shorter_than is {shortest}."
        )
    if settings.outgoing_deny_with_alphas and any(character.isalpha() for character in sanitized):
        return Refusal("alphas", "The recipient has letters, and outgoing_deny_with_alphas is set.")
    spellings = (sanitized, canonical(sanitized, settings.default_country_code))
    return _on_deny_list(spellings, settings.outgoing_deny_list)


def _on_deny_list(spellings: tuple[str, ...], deny_list: str) -> Refusal | None:
    for entry in deny_list.split(","):
        prefix = entry.strip()
        if prefix and any(spelling.startswith(prefix.lower()) for spelling in spellings):
            return Refusal("deny_list", f"The recipient begins with {prefix}, which is in outgoing_deny_list.")
    return None


def _same(ours: str, theirs: str, default_country_code: str) -> bool:
    """Whether two spellings mean one number; CHT also takes them for one when only one has its country code."""
    if not ours.strip():
        return False
    mine, other = (canonical(number, default_country_code) for number in (ours, theirs))
    if mine == other:
        return True
    # Compared as numbers, a name would be read off a telephone's keys.
    if any(character.isalpha() for character in mine + other):
        return False
    return phonenumbers.is_number_match(ours, theirs) == phonenumbers.MatchType.NSN_MATCH
