"""Reports for references that nobody knows: which message in doubt each of them settles."""

import re
from collections.abc import Collection, Iterable, Mapping

from mjumbe import phone_numbers, states
from mjumbe.couch import Database
from mjumbe.documents import LAST_MOMENT, DeliveryReport, Key, find_task, message_of, oldest_due, read_moment
from mjumbe.settings import Settings
from mjumbe.states import State, Task

CLOCKS_APART_MS = int(states.CLOCKS_APART.total_seconds() * 1000)
REPORTED_MS = 24 * 3600 * 1000  # how long after a message could last be sent reports of it are thought of
TAKEN = frozenset({State.RECEIVED_BY_GATEWAY, State.FORWARDED_BY_GATEWAY, State.SENT})

Asked = tuple[str, str]  # the digits of a number, and the service that was asked to send to it


def settled_by(
    reports: Mapping[str, DeliveryReport], received: Mapping[str, int], database: Database, settings: Settings
) -> dict[str, Key]:
    """The message that each of these reports is of, where that can be told. `received` is when each came, in ms since
    epoch. Raises UnavailableError.

    A report to a number with one message in doubt at its service is of that one: it was sent. Another service's report
    is of another message: this one may be with nobody. So is a report that came before the service was asked: another
    program may have the same account. And so may be one that comes while a request to the number is under way: it waits
    until that request's reference is stored; or where the service may have another message to the number by a reference
    that it never told.
    """
    asked = {name: (_digits(report.phone or ""), report.gateway) for name, report in reports.items()}
    doubted = _doubted({number for number, _ in asked.values() if number}, database, settings)
    single = {name: doubts[0] for name, ask in asked.items() if len(doubts := doubted.get(ask, [])) == 1}
    found = {name: place for name, (place, since) in single.items() if received[name] >= since}
    if not found:
        return {}
    under_way = _under_way(database, settings)
    found = {name: place for name, place in found.items() if under_way.get(asked[name], set()) <= {place}}
    untold = _untold({asked[name] for name in found}, database, settings)
    found = {name: place for name, place in found.items() if untold.get(asked[name], set()) <= {place}}
    # One that was under way when its report was looked up may have been stored since.
    refs = list({reports[name].ref for name in found})
    known = {row.key for row in database.view("mjumbe", "messages_by_gateway_ref", keys=refs)} if refs else set()
    return {name: place for name, place in found.items() if reports[name].ref not in known}


def _doubted(numbers: Iterable[str], database: Database, settings: Settings) -> dict[Asked, list[tuple[Key, int]]]:
    """The messages in doubt to these numbers, with when the service was asked first, in ms since epoch."""
    spelt = [each for number in numbers for each in _spellings(number, settings.default_country_code)]
    found: dict[Asked, list[tuple[Key, int]]] = {}
    keys = [["in-doubt", each] for each in spelt]
    for row in database.view_with_docs("mjumbe", "due", keys=keys) if keys else ():
        task = find_task(row.doc or {}, str(row.value["uuid"])) or {}
        for service in _services(task):
            doubt = (row.id, str(row.value["uuid"])), _asked_at(task, service)
            found.setdefault((_number(task, settings), service), []).append(doubt)
    return found


def _under_way(database: Database, settings: Settings) -> dict[Asked, set[Key]]:
    """What services are being asked to send."""
    first, last = [State.FORWARDED_TO_GATEWAY, 0], [State.FORWARDED_TO_GATEWAY, LAST_MOMENT]
    found: dict[Asked, set[Key]] = {}
    for row in database.view_with_docs("mjumbe", "due", start_key=first, end_key=last):
        task = find_task(row.doc or {}, str(row.value["uuid"])) or {}
        if task.get("claim"):
            asked = _number(task, settings), str(task.get("service"))
            found.setdefault(asked, set()).add((row.id, str(row.value["uuid"])))
    return found


def _untold(asked: Collection[Asked], database: Database, settings: Settings) -> dict[Asked, set[Key]]:
    """The messages to these numbers, lately due, that the services may have by references which they never told."""
    lately = oldest_due(states.now(), settings.sms) - REPORTED_MS
    endings = sorted({phone_numbers.ending(number) for number, _ in asked})
    queries = [
        {"start_key": ["phone", ending, lately], "end_key": ["phone", ending, LAST_MOMENT], "reduce": False}
        for ending in endings
    ]
    listed = database.view_queries("mjumbe", "messages", queries) if queries else []
    places = [(row.id, str(row.value)) for rows in listed for row in rows]
    docs = database.fetch(doc_id for doc_id, _ in places)
    services = {service for _, service in asked}
    found: dict[Asked, set[Key]] = {}
    for doc_id, uuid in places:
        task = find_task(docs.get(doc_id, {}), uuid) or {}
        for service in services:
            if _has_untold(task, service):
                found.setdefault((_number(task, settings), service), set()).add((doc_id, uuid))
    return found


def _has_untold(task: Task, service: str) -> bool:
    """Whether a service may have a message by a reference that it never told: it took it without one, or was in doubt
    about it more often than reports settled that."""
    if task.get("service") == service and states.of(task) in TAKEN and not task.get("gateway_ref"):
        return True
    entries = states.history(task)
    answered = {entry.get("gateway_ref") for entry in entries if "report" not in entry}
    reported = {entry.get("gateway_ref") for entry in entries if "report" in entry} - answered
    doubts = [entry for entry in entries if entry.get("in_doubt") and entry.get("service") == service]
    return len(doubts) > len(reported)


def _services(task: Task) -> set[str]:
    """The services that may have a message without having said so; the last one that was asked need not be one."""
    return {str(entry["service"]) for entry in states.history(task) if entry.get("in_doubt") and entry.get("service")}


def _asked_at(task: Task, service: str) -> int:
    """When a service was first asked to send a message, in ms since epoch, by the clock of whoever hears of reports,
    which may be behind ours."""
    claims = (entry for entry in states.history(task) if entry.get("state") == State.FORWARDED_TO_GATEWAY)
    first = next((entry.get("timestamp") for entry in claims if entry.get("service") == service), None)
    return (read_moment(first) or 0) - CLOCKS_APART_MS


def _number(task: Task, settings: Settings) -> str:
    """The digits of the number that a message goes to, however its author wrote it."""
    return _digits(phone_numbers.number_to_send_to(str(message_of(task).get("to")), settings))


def _digits(number: str) -> str:
    return re.sub(r"\D", "", number)


def _spellings(digits: str, country_code: str) -> list[str]:
    """How an author may have written a number, as far as digits go: with the country code or without."""
    spellings = [digits, f"00{digits}"]
    if digits.startswith(country_code):
        national = digits.removeprefix(country_code)
        spellings += [f"0{national}", national]
    return spellings
