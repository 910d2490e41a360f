"""The app settings: what is read, what is refused and with which words, how changes merge, and the reference."""

import copy
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from mjumbe import settings, settings_reference
from mjumbe.settings import Settings, SettingsError, parse

ROOT = Path(__file__).resolve().parents[2]


def at(path: str, value: object) -> dict[str, Any]:
    """{"a": {"b": value}} for "a.b"."""
    for key in reversed(path.split(".")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def read(parsed: Settings, path: str) -> object:
    found: Any = parsed
    for key in path.split("."):
        found = getattr(found, key)
    return found


ACCEPTED = [
    ("default_country_code", 254, "254"),
    ("default_country_code", "+1", "1"),
    ("gateway_number", 254711000111, "254711000111"),
    ("outgoing_deny_list", "800, SAFARI", "800, SAFARI"),
    ("outgoing_deny_shorter_than", "5", 5),
    ("outgoing_deny_shorter_than", "", 6),
    ("outgoing_deny_with_alphas", False, False),
    ("multipart_sms_limit", 255, 255),
    ("default_responses.start_date", "2026-01-31", date(2026, 1, 31)),
    ("default_responses.start_date", "", None),
    ("default_responses.start_date", " ", None),
    ("default_responses.start_date", " 2026-01-31\n", date(2026, 1, 31)),
    ("sms.africas_talking.username", "my-app ", "my-app"),
    ("sms.outgoing_service", "africas-talking ", "africas-talking"),
    ("forms_only_mode", True, True),
    ("locale", None, "en"),
    ("locale_outgoing", "sw", "sw"),
    ("public_url", "https://sms.example.org/base/", "https://sms.example.org/base"),
    ("sms.outgoing_service", "cht-gateway", "medic-gateway"),
    ("sms.outgoing_service", "rapidpro", "rapidpro"),
    ("sms.outgoing_service", "mjumbe/africas-talking", "africas-talking"),
    ("transitions", {"default_responses": {"disable": True}}, {"default_responses": {"disable": True}}),
    ("sms.fallback_services", ["textbee", "cht-gateway"], ["textbee", "medic-gateway"]),
    ("sms.reply_to", 20880, "20880"),
    ("sms.duplicate_limit", "2", 2),  # a text in CHT's own example
    ("sms.expire_after", 90, 90.0),
    ("sms.expire_after", "90", 90.0),
    ("sms.expire_after", "30m", 1800.0),
    ("sms.expire_after", " 12 H ", 43_200.0),
    ("sms.expire_after", "1.5d", 129_600.0),
    ("sms.expire_after", "2w", 1_209_600.0),
    ("sms.in_doubt", "hold", "hold"),
    ("sms.max_attempts", 1, 1),
    ("sms.retry_base", 0.05, 0.05),
    ("sms.africas_talking.base_url", "http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
    ("sms.africas_talking.base_url", "http://[::1]:8080", "http://[::1]:8080"),
    ("sms.africas_talking.max_per_second", 0.5, 0.5),
    ("sms.africas_talking.batch_size", 1000, 1000),
    ("sms.africas_talking.connect_timeout", "2s", 2.0),
    ("sms.medic_gateway.poll_limit", 10, 10),
    ("sms.rapidpro.url", "https://textit.com", "https://textit.com"),
    ("sms.viber.sender_name", "x" * 28, "x" * 28),
]


@pytest.mark.parametrize(("path", "value", "expected"), ACCEPTED)
def test_values_are_read(path: str, value: object, expected: object) -> None:
    assert read(parse(at(path, value)), path) == expected


URL = "an http or https URL without user name, password, query or fragment"
DURATION = "a duration like `30s`, `15m`, `12h` or `7d`, or a number of seconds"
SERVICES = "`medic-gateway`, `africas-talking`, `rapidpro`, `textbee` or `viber`"
REFUSED = [
    ("sms.duplicate_limit", 50, "sms.duplicate_limit is 50; expected a whole number from 1 to 20"),
    ("sms.duplicate_limit", 0, "sms.duplicate_limit is 0; expected a whole number from 1 to 20"),
    ("sms.duplicate_limit", True, "sms.duplicate_limit is true; expected a whole number from 1 to 20"),
    ("sms.duplicate_limit", 1.5, "sms.duplicate_limit is 1.5; expected a whole number from 1 to 20"),
    ("sms.outgoing_service", "sms", f'sms.outgoing_service is "sms"; expected {SERVICES}'),
    ("sms.fallback_services", ["viber", 3], f"sms.fallback_services[1] is 3; expected {SERVICES}"),
    ("sms.in_doubt", "no", 'sms.in_doubt is "no"; expected `retry` or `hold`'),
    ("sms.expire_after", "soon", f'sms.expire_after is "soon"; expected {DURATION}'),
    ("sms.expire_after", 0, f"sms.expire_after is 0; expected {DURATION}"),
    ("sms.expire_after", True, f"sms.expire_after is true; expected {DURATION}"),
    ("sms.retry_max", -1, f"sms.retry_max is -1; expected {DURATION}"),
    ("sms.max_attempts", 101, "sms.max_attempts is 101; expected a whole number from 1 to 100"),
    ("sms.default_to_sender", "maybe", 'sms.default_to_sender is "maybe"; expected `true` or `false`'),
    ("sms.reply_to", ["a"], "sms.reply_to is a list; expected a text"),
    ("sms.africas_talking", "x", 'sms.africas_talking is "x"; expected an object'),
    (
        "sms.africas_talking.batch_size",
        1001,
        "sms.africas_talking.batch_size is 1001; expected a whole number from 1 to 1000",
    ),
    (
        "sms.africas_talking.concurrency",
        0,
        "sms.africas_talking.concurrency is 0; expected a whole number from 1 to 128",
    ),
    ("sms.africas_talking.max_per_second", 0, "sms.africas_talking.max_per_second is 0; expected a number above 0"),
    (
        "sms.africas_talking.base_url",
        "localhost:8080",
        f'sms.africas_talking.base_url is "localhost:8080"; expected {URL}',
    ),
    ("sms.africas_talking.base_url", "http://", f'sms.africas_talking.base_url is "http://"; expected {URL}'),
    ("sms.africas_talking.base_url", "http://a:b", f'sms.africas_talking.base_url is "http://a:b"; expected {URL}'),
    (
        "sms.africas_talking.base_url",
        "https://me:hunter2@host",
        f'sms.africas_talking.base_url is "https://***@host"; expected {URL}',
    ),
    ("public_url", "http://:hunter2@host", f'public_url is "http://***@host"; expected {URL}'),
    ("public_url", "http://my host", f'public_url is "http://my host"; expected {URL}'),
    ("sms.opt_out_words", ["STOP,END"], 'sms.opt_out_words[0] is "STOP,END"; expected one word'),
    ("public_url", "ftp://host", f'public_url is "ftp://host"; expected {URL}'),
    ("public_url", "http://host/?key=1", f'public_url is "http://host/?key=1"; expected {URL}'),
    ("sms.opt_out_words", ["STOP IT"], 'sms.opt_out_words[0] is "STOP IT"; expected one word'),
    ("sms.opt_out_words", "STOP", 'sms.opt_out_words is "STOP"; expected a list, each entry one word'),
    ("sms.replies", [{"keyword": "!", "message": "x"}], 'sms.replies[0].keyword is "!"; expected one word'),
    (
        "sms.replies",
        [{"keyword": "a", "message": "{{#x}}a{{/y}}"}],
        'sms.replies[0].message is "{{#x}}a{{/y}}"; expected a text, in which every Mustache tag and section is closed',
    ),
    (
        "sms.replies",
        [{"keyword": "a"}],
        "sms.replies[0] is an object; expected an object with `keyword` and either `message` or `translation_key`",
    ),
    (
        "sms.viber.sender_name",
        "x" * 29,
        f'sms.viber.sender_name is "{"x" * 29}"; expected a text of at most 28 characters',
    ),
    ("default_country_code", "KE", 'default_country_code is "KE"; expected a calling code like `254`'),
    ("default_country_code", "0254", 'default_country_code is "0254"; expected a calling code like `254`'),
    (
        "default_responses.start_date",
        "soon",
        'default_responses.start_date is "soon"; expected a date like `2026-01-31`',
    ),
    ("outgoing_phone_replace", 4, "outgoing_phone_replace is 4; expected an object"),
    ("permissions", {"can_x": "admin"}, 'permissions.can_x is "admin"; expected a list, each entry a text'),
    ("forms", [], "forms is a list; expected an object"),
    ("multipart_sms_limit", "many", 'multipart_sms_limit is "many"; expected a whole number from 1 to 255'),
    ("locale", {"x": 1}, "locale is an object; expected a text"),
    ("locale", ["y" * 100], "locale is a list; expected a text"),
    ("sms.max_attempts", "y" * 100, f'sms.max_attempts is "{"y" * 59}…; expected a whole number from 1 to 100'),
]


@pytest.mark.parametrize(("path", "value", "sentence"), REFUSED)
def test_wrong_values_are_refused_with_path_value_and_expectation(path: str, value: object, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(at(path, value))
    assert str(caught.value) == sentence
    assert len(caught.value.problems) == 1


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        parse({"locale": [], "sms": {"duplicate_limit": 50, "in_doubt": "?"}})
    assert [problem.path for problem in caught.value.problems] == ["locale", "sms.duplicate_limit", "sms.in_doubt"]
    assert caught.value.problems[1].value == 50


@pytest.mark.parametrize("path", ["sms.africas_talking.api_key", "sms.key", "viber.auth_token", "x.Password"])
def test_a_value_is_not_shown_where_the_path_looks_secret(path: str) -> None:
    sentence = str(settings.Problem(path, "hunter2", "a text"))
    assert sentence == f"{path} is not valid; expected a text"


def test_not_an_object() -> None:
    with pytest.raises(SettingsError, match="settings is a list; expected an object"):
        parse([])  # type: ignore[arg-type]


def test_defaults_without_any_setting() -> None:
    parsed = parse({})
    assert (parsed.default_country_code, parsed.locale, parsed.locale_outgoing) == ("254", "en", "en")
    assert (parsed.sms.outgoing_service, parsed.sms.duplicate_limit, parsed.sms.in_doubt) == (
        "medic-gateway",
        5,
        "retry",
    )
    assert (parsed.sms.expire_after, parsed.sms.retry_base, parsed.sms.retry_max) == (604_800, 30, 3600)
    assert (parsed.sms.africas_talking.connect_timeout, parsed.sms.africas_talking.read_timeout) == (5, 60)
    assert parsed.permissions == {"can_access_gateway_api": ["gateway"]}
    assert parsed.outgoing_phone_replace is None


def test_outgoing_language_follows_the_language_unless_set() -> None:
    assert parse({"locale": "sw"}).locale_outgoing == "sw"
    assert parse({"locale": "sw", "locale_outgoing": ""}).locale_outgoing == "sw"
    assert parse({"locale": "sw", "locale_outgoing": "en"}).locale_outgoing == "en"


def test_other_programs_keys_are_carried_along() -> None:
    values = {"schedules": [{"name": "ANC"}], "sms": {"theirs": {"a": None}}}
    before = copy.deepcopy(values)
    parsed = parse(values)
    assert values == before
    assert parsed.model_dump()["schedules"] == [{"name": "ANC"}]


def test_settings_are_read_only() -> None:
    parsed = parse({})
    with pytest.raises(ValueError, match="frozen"):
        parsed.locale = "sw"


def test_shipped_defaults_are_valid_and_select_the_sandbox() -> None:
    defaults = settings.load_defaults()
    parsed = parse(defaults)
    assert parsed.sms.outgoing_service == "africas-talking"
    assert parsed.sms.africas_talking.username == "sandbox"
    assert parsed.default_responses.start_date is None
    assert {reply.keyword for reply in parsed.sms.replies} == {"HELP", "MSAADA"}
    settings.load_defaults()["sms"]["outgoing_service"] = "x"
    assert settings.load_defaults() == defaults


CURRENT = {
    "locale": "en",
    "list": [1, 2],
    "sms": {"reply_to": "1", "africas_talking": {"username": "u", "batch_size": 5}},
}
CHANGES = {"list": [3], "sms": {"africas_talking": {"username": "v"}}, "new": {"a": 1}}
MERGES = [
    (
        {},
        {
            "locale": "en",
            "list": [3],
            "sms": {"reply_to": "1", "africas_talking": {"username": "v", "batch_size": 5}},
            "new": {"a": 1},
        },
    ),
    (
        {"replace": True},
        {"locale": "en", "list": [3], "sms": {"africas_talking": {"username": "v"}}, "new": {"a": 1}},
    ),
    ({"overwrite": True}, CHANGES),
    ({"overwrite": True, "replace": True}, CHANGES),
]


@pytest.mark.parametrize(("how", "expected"), MERGES)
def test_changes_merge_as_in_cht(how: dict[str, bool], expected: dict[str, Any]) -> None:
    current, changes = copy.deepcopy(CURRENT), copy.deepcopy(CHANGES)
    merged = settings.merge(current, changes, **how)
    assert merged == expected
    merged["new"]["a"] = 2
    merged["list"].append(4)
    assert (current, changes) == (CURRENT, CHANGES)


def test_an_object_takes_the_place_of_a_plain_value_and_the_reverse() -> None:
    assert settings.merge({"a": "x", "b": {"c": 1}}, {"a": {"d": 1}, "b": None}) == {"a": {"d": 1}, "b": None}


def test_reference_is_in_the_documentation() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    table = settings_reference.reference()
    assert table in page, "docs/settings.md is out of date: put the output of `mjumbe settings reference` at its end"


def test_reference_names_every_key() -> None:
    rows = [
        line.split(" | ")[0].removeprefix("| ").strip("`") for line in settings_reference.reference().splitlines()[2:]
    ]
    assert len(rows) == len(set(rows))
    assert {path.replace("[]", "") for path, _, _ in ACCEPTED} <= set(rows)
    assert "| `sms.expire_after` | a duration like" in settings_reference.reference()
    assert "| `7d` |" in settings_reference.reference()
    assert "| `sms.replies[].keyword` | one word | required |" in settings_reference.reference()


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("sms.reply_to", True),
        ("sms.africas_talking", True),
        ("permissions.can_access_gateway_api", True),
        ("sms.reply_too", False),
        ("sms.reply", False),
        ("", False),
    ],
)
def test_which_settings_are_read(path: str, read: bool) -> None:
    assert settings_reference.reads(path) is read


def test_misspelt_settings_are_found_among_those_that_nobody_reads() -> None:
    sms = {
        "duplicate_limits": 5,
        "reply_to": "22000",
        "africas_talking": {"user_name": "x", "username": "y"},
        "africas_taking": {"username": "y"},
        "something_of_somebody_else": {"duplicate_limit": 1},
    }
    assert settings_reference.misspelt(sms) == {
        "sms.duplicate_limits": "sms.duplicate_limit",
        "sms.africas_talking.user_name": "sms.africas_talking.username",
        "sms.africas_taking": "sms.africas_talking",
    }


def test_what_a_misspelt_setting_may_have_meant() -> None:
    assert settings_reference.meant("sms.africastalking.username") == "sms.africas_talking.username"
    assert settings_reference.meant("branding") is None


def test_a_new_database_begins_with_the_defaults_in_a_sandbox_and_two_answers() -> None:
    """docs/settings.md gives the defaults, and whoever takes a line out of the file changes nothing."""
    given = settings.load_defaults()
    parsed = parse(given)
    assert (parsed.sms.outgoing_service, parsed.sms.africas_talking.username) == ("africas-talking", "sandbox")
    answers = {reply.keyword: reply.message for reply in parsed.sms.replies}
    assert set(answers) == {"HELP", "MSAADA"}
    stops = {word.casefold() for word in parsed.sms.opt_out_words}
    for message in answers.values():
        assert [word for word in message.split() if word.casefold() in stops], "it names a word that ends all"
    for name in ("outgoing_service", "replies", "africas_talking"):
        del given["sms"][name]
    assert parse(given) == Settings()

    def paths(values: dict[str, Any], prefix: str = "") -> list[str]:
        inner = [(f"{prefix}{name}", value) for name, value in values.items()]
        return [
            leaf for path, value in inner for leaf in (paths(value, f"{path}.") if isinstance(value, dict) else [path])
        ]

    assert [path for path in paths(settings.load_defaults()) if not settings_reference.reads(path)] == []
