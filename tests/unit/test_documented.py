"""Limits that the documentation promises are those that the code has."""

from pathlib import Path

import pytest

from api import auth, bodies, cht_gateway, intake, limiter, messages, server, settings, sms_service
from mjumbe import credentials, documents, health, mustache
from mjumbe.commands import doctor
from mjumbe.gateways import africas_talking, base, connections, viber
from sentinel import claims, polls, recent, service

DOCS = Path(__file__).parents[2] / "docs"
WORDS = {5: "five", 10: "ten", 60: "minute"}
KIB, MIB = 1024, 1024 * 1024

PROMISED = [
    ("security", f"wrong callback keys from an address | {limiter.FAILURES_PER_MINUTE} a minute"),
    ("security", f"wrong logins for a name from an address | {limiter.FAILURES_PER_MINUTE} a minute"),
    ("security", f"whatever the names | {limiter.FAILURES_PER_ADDRESS} a minute"),
    ("security", f"turn, {limiter.TURN_SECONDS:.0f} seconds at most, then 503"),
    ("security", f"The {limiter.REMEMBERED:,} addresses that failed last are remembered"),
    ("security", f"A good login is remembered for {WORDS.get(int(auth.REMEMBERED_SECONDS))} seconds"),
    (
        "security",
        f"body: callback; poll; settings, messages | {bodies.CALLBACK_BYTES / KIB:g} KiB; "
        f"{bodies.OBJECT_BYTES / MIB:g} MiB; {settings.SETTINGS_BYTES / MIB:g} MiB |",
    ),
    ("security", f"settings, messages | 64 KiB; 1 MiB; {messages.BODY_BYTES / MIB:g} MiB |"),
    (
        "security",
        f"fields of a form; messages in a call of `/api/v1/messages` | {bodies.MOST_FIELDS}; "
        f"{messages.MOST_MESSAGES:,} |",
    ),
    (
        "security",
        f"request line, header | {server.OPTIONS['limit_request_line']:,} bytes each, "
        f"{server.OPTIONS['limit_request_fields']} headers |",
    ),
    ("security", f"request line, header | {server.OPTIONS['limit_request_field_size']:,} bytes each"),
    ("security", f"within a request or between two | {server.KEEP_ALIVE} s |"),
    ("security", f"connections of a process | {server.CONNECTIONS:,} |"),
    ("security", f"from {server.CONNECTIONS * server.CROWD:,.0f} on, the one whose client has been silent longest"),
    ("security", f"a passphrase of at least {credentials.MIN_PASSPHRASE} characters"),
    ("security", f"keys of fewer than {base.SHORTEST_SECRET} characters are not"),
    ("security", f"of each sentence {documents.MOST_WORDS} characters are kept"),
    ("security", f"An answer has {connections.LARGEST_ANSWER / MIB:g} MiB at most"),
    ("routing", f"answered for {service.SILENT_SECONDS:.0f} s: then the next one"),
    (
        "routing",
        f"{WORDS.get(service.BREAKER_FAILURES)} requests failed in a row | {service.BREAKER_SECONDS:.0f} s, doubled",
    ),
    ("routing", f"failed probe up to a {WORDS.get(int(service.PROBE_SECONDS))}; one probe at a time"),
    ("africas-talking", f"once a {WORDS.get(int(polls.POLL_SECONDS))} mjumbe looks into Africa's Talking's inbox"),
    ("africas-talking", f"older than a {WORDS.get(int(africas_talking.UNSETTLED.total_seconds()))} and not there yet"),
    ("routing", f"looked at again after {WORDS.get(claims.UNREACHED_WAIT.seconds // 60)} minutes"),
    ("routing", f"says nothing of it for {cht_gateway.HOLDER_SECONDS / 3600:g} hours"),
    ("phone-gateway", f"After {cht_gateway.HOLDER_SECONDS / 3600:g} hours, when the app itself gives up"),
    ("sms-service", f"after {sms_service.ANSWERED_SECONDS:.0f} seconds at the latest"),
    ("sms-service", f"has not stored it within {intake.ANSWER_WITHIN:.0f} s"),
    ("troubleshooting", f"less than {doctor.LEAST_FREE / MIB:g} MB are free"),
    ("troubleshooting", f"more than {doctor.CLOCK_SECONDS:.0f} s apart"),
    ("troubleshooting", f"has not been heard of for {health.SILENT_SECONDS:.0f} s"),
    ("troubleshooting", f"times within {recent.WINDOW_SECONDS / 60:g} minutes"),
    ("premium", f"for each of up to {messages.MOST_SUBSCRIBERS:,} subscribers"),
    ("settings", f"may stand within each other {settings.DEEPEST} deep"),
    ("cht", f"A template of more than {mustache.MOST_TEMPLATE:,} characters"),
    ("cht", f"more than {mustache.MOST_ENTRIES:,} entries of lists"),
    ("viber", f"any other | stays due | again, at most {viber.MOST_ATTEMPTS} times"),
]


@pytest.mark.parametrize(("page", "promise"), PROMISED)
def test_a_limit_is_as_it_is_documented(page: str, promise: str) -> None:
    assert promise in " ".join((DOCS / f"{page}.md").read_text().split())


def test_a_reference_is_kept_as_far_as_a_sentence_is() -> None:
    """As docs/security.md says of both at once."""
    assert base.LONGEST_REF == documents.MOST_WORDS
