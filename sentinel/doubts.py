"""Reports for references that nobody knows: which message in doubt each of them settles."""

import re
from collections.abc import Iterable, Mapping

from mjumbe import phone_numbers, states
from mjumbe.couch import Database
from mjumbe.documents import LAST_MOMENT, DeliveryReport, Key, find_task, message_of
from mjumbe.settings import Settings
from mjumbe.states import State, Task

Asked = tuple[str, str]  # the digits of a number, and the service that was asked to send to it


def settled_by(reports: Mapping[str, DeliveryReport], database: Database, settings: Settings) -> dict[str, Key]:
    """The message that each of these reports is of, where that can be told. Raises UnavailableError.

    A report to a number with one message in doubt at its service is of that one: it was sent. Another service's report
    is of another message: this one may be with nobody. And so may be one that comes while a request to the number is
    under way: it waits until that request's reference is stored.
    """
    asked = {name: (_digits(report.phone or ""), report.gateway) for name, report in reports.items()}
    doubted = _doubted({number for number, _ in asked.values() if number}, database, settings)
    found = {name: places[0] for name, ask in asked.items() if len(places := doubted.get(ask, [])) == 1}
    if not found:
        return {}
    under_way = _under_way(database, settings)
    found = {name: place for name, place in found.items() if under_way.get(asked[name], set()) <= {place}}
    # One that was under way when its report was looked up may have been stored since.
    refs = list({reports[name].ref for name in found})
    known = {row.key for row in database.view("mjumbe", "messages_by_gateway_ref", keys=refs)} if refs else set()
    return {name: place for name, place in found.items() if reports[name].ref not in known}


def _doubted(numbers: Iterable[str], database: Database, settings: Settings) -> dict[Asked, list[Key]]:
    """The messages in doubt to these numbers."""
    spelt = [each for number in numbers for each in _spellings(number, settings.default_country_code)]
    found: dict[Asked, list[Key]] = {}
    keys = [["in-doubt", each] for each in spelt]
    for row in database.view_with_docs("mjumbe", "due", keys=keys) if keys else ():
        task = find_task(row.doc or {}, str(row.value["uuid"])) or {}
        for service in _services(task):
            found.setdefault((_number(task, settings), service), []).append((row.id, str(row.value["uuid"])))
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


def _services(task: Task) -> set[str]:
    """The services that may have a message without having said so; the last one that was asked need not be one."""
    return {str(entry["service"]) for entry in states.history(task) if entry.get("in_doubt") and entry.get("service")}


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
