"""Holds mjumbe's documents against the services' books, by what docs/ and the README's promises say."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any

from tests.generated.services.books import AT, PHONE, RAPIDPRO, SERVICES, TEXTBEE, VIBER, Books, Deed, Key, Said, Word

Task = Mapping[str, Any]

FORWARD = (
    "scheduled",
    "pending",
    "forwarded-to-gateway",
    "received-by-gateway",
    "forwarded-by-gateway",
    "sent",
    "delivered",
)
DUE = ("scheduled", "pending")
NOT_SENT = ("failed", "denied")
KILL_SECONDS = 60.0  # how long after a request its answer may still be unstored; much more than it is
VIBER_ATTEMPTS = 3  # at what is answered with a status that nobody knows


@dataclass(frozen=True)
class Rules:
    """What the settings say, and how long a held service is left alone in this run."""

    in_doubt: str
    max_attempts: int
    seconds: float  # that the run took
    probe_seconds: float


@dataclass(frozen=True)
class Case:
    """One message, or several with one text to one number: their tasks, and what the services did with them."""

    key: Key
    tasks: Sequence[Task]
    deeds: Sequence[Deed]
    words: Mapping[str, Sequence[Word]]  # by reference
    kills: Sequence[float]  # of the sentinel
    shared: bool  # whether its number gets other messages too
    settled: tuple[int, int]  # how often a person said that it was not sent, and that it was
    rules: Rules

    @property
    def taken(self) -> list[Deed]:
        return [deed for deed in self.deeds if deed.taken]

    def told(self, deed: Deed) -> Sequence[Word]:
        return self.words.get(deed.ref, ()) if deed.ref else ()


def judge(books: Books, docs: Sequence[Mapping[str, Any]], rules: Rules) -> list[str]:
    """What is wrong, a line each; nothing when all is as promised."""
    found = list(books.oddities)
    found += _letters(books, docs)
    for doc in docs:
        if doc.get("sms_message") and len(doc.get("tasks") or ()) > 1:
            found.append(f"{doc['_id']}: answered {len(doc['tasks'])} times")
    ordered = Counter(order.key for order in books.orders)
    for case in _cases(books, docs, rules):
        if case.key in ordered and len(case.tasks) != ordered[case.key]:
            found.append(f"{case.key}: {len(case.tasks)} tasks for {ordered[case.key]} messages")
        number, text = case.key
        found += [f"{number} {text!r}: {wrong}\n    {_shown(case)}" for wrong in _wrong(case)]
    orders: dict[Key, list[Any]] = defaultdict(list)
    for order in books.orders:
        orders[order.key].append(order)
    answers = {letter.sender: letter.link_id for letter in books.letters if letter.link_id}
    for deed in books.deeds:
        for order in orders.get(deed.key, ()):
            if order.service not in (None, deed.service):
                found.append(f"{deed.key}: sent by {deed.service}, not {order.service}")
            if deed.service == AT and order.premium != deed.premium:
                found.append(f"{deed.key}: premium is {deed.premium}")
        if deed.service == AT and deed.key not in orders and deed.link_id != answers.get(deed.key[0]):
            found.append(f"{deed.key}: an answer with the linkId {deed.link_id}")
    return found


# ---- what came in


def _letters(books: Books, docs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Exactly once, if it was acknowledged or is in an inbox; else once at most."""
    stored = Counter(
        (doc["sms_message"]["from"], doc["sms_message"]["message"])
        for doc in docs
        if isinstance(doc.get("sms_message"), dict)
    )
    known = {}
    for letter in books.letters:
        times = stored[letter.sender, letter.text]
        known[letter.sender, letter.text] = letter
        if times > 1 or (times == 0 and (letter.heard or letter.listed)):
            yield f"incoming by {letter.service}, {letter.sender} {letter.text!r}: stored {times} times"
    for key in stored.keys() - known.keys():
        yield f"incoming that nobody wrote: {key}"


# ---- what went out


def _cases(books: Books, docs: Sequence[Mapping[str, Any]], rules: Rules) -> Iterator[Case]:
    tasks: dict[Key, list[Task]] = defaultdict(list)
    for doc in docs:
        for task in chain(doc.get("tasks") or (), doc.get("scheduled_tasks") or ()):
            [message] = task["messages"]
            tasks[in_full(message["to"]), message["message"]].append(task)
    deeds: dict[Key, list[Deed]] = defaultdict(list)
    for deed in sorted(books.deeds, key=lambda deed: deed.at):
        deeds[deed.key].append(deed)
    words: dict[str, list[Word]] = defaultdict(list)
    for word in books.words:
        words[word.ref].append(word)
    for key in {**tasks, **deeds, **dict.fromkeys(order.key for order in books.orders)}:
        settled = books.settled[key, False], books.settled[key, True]
        yield Case(key, tasks[key], deeds[key], words, books.kills, key[0] in books.regulars, settled, rules)


def in_full(number: str) -> str:
    """A number as services are asked for it, of one that is written as at home."""
    return f"+254{number[1:]}" if number.startswith("0") else number


def _wrong(case: Case) -> Iterator[str]:
    if not case.tasks:
        yield "no document has it"
        return
    yield from _bounds(case)
    yield from _doubles(case)
    for task in case.tasks:
        yield from _end(case, task)
        yield from _way(task)
    if len(case.tasks) == 1:
        yield from _only(case, case.tasks[0])
    elif len(case.taken) + case.settled[1] < sum(task["state"] in FORWARD[3:] for task in case.tasks):
        yield "more are sent than any service took"


def _bounds(case: Case) -> Iterator[str]:
    """Requests: those that spend an attempt, and the probes of held services."""
    spent = [deed for deed in case.deeds if deed.said in (Said.TAKEN, Said.UNCLEAR, Said.PASSING, Said.FINAL)]
    # A person gives one more to what was given up.
    if len(spent) > case.rules.max_attempts * len(case.tasks) + case.settled[0]:
        yield f"{len(spent)} requests that spend an attempt"
    most = len(SERVICES) * (2 + case.rules.seconds / case.rules.probe_seconds)
    if len(case.deeds) - len(spent) > most * len(case.tasks):
        yield f"{len(case.deeds) - len(spent)} requests that spend none"


def _doubles(case: Case) -> Iterator[str]:
    """Twice only what the document marks as in doubt, for a reason; or what a phone said that it could not send."""
    extra = len(case.taken) - len(case.tasks) - case.settled[0]
    failed = {deed.ref for deed in case.taken if deed.service == TEXTBEE and any(w.again for w in case.told(deed))}
    if extra - len(failed) <= 0:
        return
    if case.rules.in_doubt == "hold":
        yield f"held, and taken {len(case.taken)} times"
        return
    if extra - len(failed) > sum(_doubts(task) for task in case.tasks):
        yield f"taken {len(case.taken)} times, and marked {sum(_doubts(task) for task in case.tasks)} times"
    surely = [deed for deed in case.taken if not _in_doubt(case, deed) and deed.ref not in failed]
    if case.settled[0]:
        return  # whoever said that it was not sent may have been wrong
    if len(surely) > len(case.tasks) or (len(case.tasks) == 1 and surely and surely[0] is not case.taken[-1]):
        yield f"went on after {surely[0].service} had taken it for sure"


def _doubts(task: Task) -> int:
    return sum(bool(entry.get("in_doubt")) for entry in task["state_history"])


def _in_doubt(case: Case, deed: Deed) -> bool:
    """Whether mjumbe may not know that this was taken: no good answer, or the sentinel ended meanwhile."""
    return deed.said is Said.UNCLEAR or any(0 <= at - deed.at < KILL_SECONDS for at in case.kills)


def _end(case: Case, task: Task) -> Iterator[str]:
    """Whether a message may be in its state when all is over."""
    state, details = task["state"], task.get("state_details")
    held = state == "forwarded-to-gateway" and task.get("in_doubt") and case.rules.in_doubt == "hold"
    known = [deed for deed in case.taken if not _in_doubt(case, deed)]
    later = any(deed.said is Said.LATER for deed in case.deeds)
    with_phone = held or any(deed.service == PHONE for deed in case.taken)
    if (state in DUE and not later) or (state == "forwarded-to-gateway" and not with_phone):
        yield f"still {state}: {details}"
    elif held and not any(_in_doubt(case, deed) for deed in case.deeds) and not case.kills:
        yield "held without a reason"
    elif held and len(case.tasks) == len(case.taken) == 1 and _is_settled(case):
        yield "held, though a report told of it"
    elif held and len(known) == len(case.tasks):
        yield "held, though a service took it for sure"
    elif state == "failed" and not case.taken and not _is_given_up(case, task):
        yield f"given up: {details}"
    elif state in FORWARD[3:] and not case.taken and not case.settled[1]:
        yield f"{state}, and no service took it"
    elif state not in (*FORWARD, *NOT_SENT, "unrecognised"):
        yield f"{state}: {details}"


def _is_settled(case: Case) -> bool:
    """Whether a report that names the number came, and the number gets no other message."""
    [deed] = case.taken
    return not case.shared and deed.service in (AT, TEXTBEE) and any(word.heard for word in case.told(deed))


def _is_given_up(case: Case, task: Task) -> bool:
    if any(deed.said in (Said.FINAL, Said.ODD) for deed in case.deeds):
        return True
    least = VIBER_ATTEMPTS if any(deed.service == VIBER for deed in case.deeds) else case.rules.max_attempts
    return int(task.get("attempts") or 0) >= least


def _way(task: Task) -> Iterator[str]:
    """The history goes forward, but for what is given back to be sent again before any service said that it is sent."""
    sent = False
    for entry in task["state_history"]:
        if entry.get("late"):
            continue
        state = entry["state"]
        if sent and state in FORWARD[:5] and not entry.get("report"):
            yield f"from sent back to {state}"
        sent = state in ("sent", "delivered")
    if str(task.get("gateway_ref") or "ref") == "None":
        yield "the reference None"


def _only(case: Case, task: Task) -> Iterator[str]:
    """What is known of a message that one service took once, and said so."""
    if len(case.taken) > 1:
        yield from _several(case, task)
        return
    if not case.taken or _in_doubt(case, case.taken[0]) or any(case.settled):
        return
    [deed] = case.taken
    if deed.service != PHONE and deed.ref and task.get("gateway_ref") != deed.ref:
        yield f"its reference is {task.get('gateway_ref')!r}, not {deed.ref!r}"
    words = case.told(deed)
    if any(word.again and word.heard for word in words):
        return  # it goes again, perhaps to be refused
    heard = [word for word in words if word.heard]
    others = [word for word in words if not word.heard]
    may = [_fold(deed, [*heard, *more]) for more in _subsets(others)]
    if not any(task["state"] in states for states in may):
        yield f"is {task['state']}, not {' or '.join(sorted(set().union(*may)))}"
    told = {str(entry.get("report")).lower() for entry in task["state_history"]}
    missed = {word.status for word in heard if word.status.lower() not in told} if deed.service != PHONE else set()
    if missed:
        yield f"its history lacks {', '.join(sorted(missed))}"
    if deed.service == RAPIDPRO and task["state"] == "received-by-gateway" and not heard:
        yield "RapidPro was never asked what became of it"


def _several(case: Case, task: Task) -> Iterator[str]:
    """What was told of the message as its document has it now."""
    current = [deed for deed in case.taken if deed.ref and deed.ref == task.get("gateway_ref")]
    words = [word for deed in current for word in case.told(deed) if word.heard]
    if any(word.state == "delivered" for word in words) and task["state"] not in ("delivered", "denied"):
        yield f"delivered by its reference, and {task['state']}"


def _fold(deed: Deed, words: Sequence[Word]) -> set[str]:
    """The states that a message may be in which a service answered so for and then told this of, in any order."""
    states = {word.state for word in words}
    odd = {"unrecognised"} if deed.service == PHONE and None in states else set()
    if "delivered" in states:
        return {"delivered", "denied"} if "denied" in states else {"delivered"} | odd
    refused = states & set(NOT_SENT)
    if refused:
        return {str(state) for state in refused}
    known = [FORWARD.index(state) for state in (deed.state, *states) if state in FORWARD]
    return {FORWARD[max(known)]} | odd


def _subsets(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    few = words[:6]
    return chain.from_iterable(combinations(few, count) for count in range(len(few) + 1))


def _shown(case: Case) -> str:
    """All that is known of it, for whoever reads the complaint."""
    deeds = [
        f"{deed.service} {deed.said.name}{' taken' if deed.taken else ''} {deed.ref or ''} "
        f"[{', '.join(w.status + ('' if w.heard else ' (unheard)') for w in case.told(deed))}]"
        for deed in case.deeds
    ]
    return "\n    ".join([*deeds, *(" > ".join(map(_entry, task["state_history"])) for task in case.tasks)])


def _entry(entry: Mapping[str, Any]) -> str:
    facts = [str(entry.get(name) or "") for name in ("state", "service", "report", "state_details")]
    return " ".join([*filter(None, facts), *(mark for mark in ("late", "in_doubt") if entry.get(mark))])
