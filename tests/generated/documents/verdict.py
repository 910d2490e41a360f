"""Whether what was expected came: the services' own record and the documents against the oracle."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from mjumbe.documents import Document, tasks_of
from mjumbe.states import Task
from tests.generated.documents.oracle import ANSWER, Expected

Key = tuple[str, str]  # number and text
Tasks = Mapping[tuple[str, str], Sequence[Task]]  # by their document and mark

ORDER = ["scheduled", "pending", "forwarded-to-gateway", "received-by-gateway", "forwarded-by-gateway", "sent"]
ORDER += ["delivered"]
ENOUGH = 3  # attempts with which no service took a message
NOT_SENT = {"denied", "cleared", "muted", "duplicate", "failed"}
# After a request it is tried again; and what waits may be put off by its author.
STEPS_BACK = {
    ("forwarded-to-gateway", "pending"),
    ("received-by-gateway", "pending"),  # what passes goes again (docs/textbee.md)
    ("pending", "scheduled"),
}


def tasks_by_mark(docs: Iterable[Document]) -> dict[tuple[str, str], list[Task]]:
    found = defaultdict(list)
    for doc in docs:
        for task in tasks_of(doc):
            # What is not due yet may have several messages.
            for mark in marks_of(task) or [task.get("mark", ANSWER)]:
                found[doc["_id"], mark].append(task)
    return found


def marks_of(task: Task) -> list[str]:
    """Those of its messages, where each has one."""
    messages = task.get("messages")
    return [said["mark"] for said in (messages if isinstance(messages, list) else []) if _is_marked(said)]


def _is_marked(message: Any) -> bool:
    return isinstance(message, dict) and "mark" in message


def doubts(task: Task) -> int:
    """How many requests with this message ended without an answer that was stored."""
    return sum(bool(entry.get("in_doubt")) for entry in task.get("state_history") or [] if isinstance(entry, dict))


class Verdict:
    """Compares; each complaint is a line for people."""

    def __init__(self, settings: Document, expected: Sequence[Expected]) -> None:
        self._limit = settings["sms"]["duplicate_limit"]
        self._hold = settings["sms"]["in_doubt"] == "hold"
        self._attempts = settings["sms"]["max_attempts"]
        self._most = 1 if self._hold else self._attempts  # times that one message is sent
        self._by_key: dict[Key, list[Expected]] = defaultdict(list)
        for one in expected:
            self._by_key[one.key].append(one)

    def complaints(self, record: Mapping[Key, Sequence[Mapping[str, Any]]], tasks: Tasks) -> Iterator[str]:
        """A line for each message of which something else came, with what is known of it."""
        for key, group in self._by_key.items():
            taken = record.get(key, ())
            found = [tasks.get((one.doc_id, one.mark)) for one in group]
            known = f"expected: {group}; tasks: {json.dumps(found)}; taken: {taken}"
            yield from (f"{line}; {known}" for line in self._of_group(group, taken, tasks))
        for to, text in record.keys() - self._by_key.keys():
            yield f"nobody wrote this: {record[to, text]}"

    def _of_group(self, group: list[Expected], taken: Sequence[Mapping[str, Any]], tasks: Tasks) -> Iterator[str]:
        """What is to be said of all messages with one text to one number."""
        to_send = [one for one in group if one.most]
        too_many = len(to_send) > self._limit
        doubted = held = ended = 0
        for one in group:
            found = tasks.get((one.doc_id, one.mark), ())
            if len(found) != 1:
                yield f"{_name(one)} is in {len(found)} tasks"
                continue
            task = found[0]
            doubted += doubts(task)
            waits = self._hold and bool(task.get("in_doubt")) and task["state"] == "forwarded-to-gateway"
            gave_up = task["state"] == "failed" and task.get("attempts") == self._attempts
            # Where many fail the service rests, and each has its attempts minutes later.
            tried = not one.most and task["state"] == "pending" and task.get("attempts", 0) >= ENOUGH
            held += waits
            ended += bool(gave_up)
            if one.most and too_many and task["state"] == "duplicate":
                continue
            if task["state"] not in one.states and not (waits or tried or (one.most and gave_up)):
                yield f"{_name(one)} is {task['state']} ({task.get('state_details')}); expected {sorted(one.states)}"
        least, most = sum(one.least for one in group), sum(min(one.most, self._most) for one in group)
        if too_many:
            least, most = min(least, self._limit), min(most, self._limit)
        if not self._hold:
            most += doubted
        if not least - held - ended <= len(taken) <= most:
            yield f"{_name(group[0])} was taken {len(taken)} times; expected {least} to {most}, {doubted} in doubt"
        soonest = min(one.not_before for one in group)
        early = [entry["at"] for entry in taken if entry["accepted_ms"] < soonest]
        if early:
            yield f"{_name(group[0])} was taken at {early}, before it was due"


def _name(one: Expected) -> str:
    return f"{one.doc_id}: {one.mark}"


class Progress:
    """Sees that states only move forward, from one look at the documents to the next."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], str] = {}

    def steps_back(self, tasks: Tasks) -> list[str]:
        """Those messages whose state went back since the last look."""
        found = []
        for key, (task, *_) in tasks.items():
            before, now = self._seen.get(key), str(task.get("state"))
            if before is not None and not is_forward(before, now):
                found.append(f"{key} went from {before} to {now}")
            self._seen[key] = now
        return found


def is_forward(before: str, now: str) -> bool:
    if before == now or (before, now) in STEPS_BACK:
        return True
    if before in NOT_SENT:
        return before == "failed" and now == "delivered"
    if now in NOT_SENT:
        return before != "delivered"
    if before not in ORDER or now not in ORDER:
        return False
    # Between two looks a message may be claimed and released more than once.
    return ORDER.index(before) < ORDER.index(now)


def history_goes_back(task: Task) -> list[tuple[str, str]]:
    """The steps back in a task's history, but for those that came late and say so."""
    entries = [entry for entry in task.get("state_history") or [] if isinstance(entry, dict) and not entry.get("late")]
    states = [str(entry["state"]) for entry in entries if "conflict" not in entry]
    return [pair for pair in pairwise(states) if not is_forward(*pair)]


def counted(entries: Iterable[Mapping[str, Any]]) -> dict[Key, list[Mapping[str, Any]]]:
    """What services took, by number and text."""
    found: dict[Key, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in entries:
        found[entry["to"], entry["message"]].append(entry)
    return found


def summary(tasks: Tasks) -> str:
    states = Counter(str(task.get("state")) for found in tasks.values() for task in found)
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
