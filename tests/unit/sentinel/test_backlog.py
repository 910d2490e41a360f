"""What waits between the feed and the work, in which order, and how far all is done."""

import pytest

from mjumbe.couch import Change
from sentinel import backlog
from sentinel.backlog import Backlog


def changes(*ids: str) -> list[Change]:
    return [Change(one, "1-x", False) for one in ids]


@pytest.mark.parametrize(
    ("read", "people", "others"),
    [
        (["a", "b", "c"], [], ["a", "b"]),
        (["a", "incoming:1", "b", "incoming:2"], ["incoming:1", "incoming:2"], ["a", "b"]),
        (["incoming:1", "incoming:2", "incoming:3"], ["incoming:1", "incoming:2"], []),
        ([], [], []),
    ],
    ids=["in order", "people apart", "people alone", "nothing"],
)
def test_what_is_next(read: list[str], people: list[str], others: list[str]) -> None:
    waiting = Backlog("0")
    waiting.add(changes(*read), "9")
    for _ in range(2):  # it waits until it is finished
        assert (list(waiting.people(2)), list(waiting.others(2))) == (people, others)


def test_documents_that_came_with_their_changes_are_kept_as_long() -> None:
    waiting = Backlog("0")
    waiting.add([Change("a", "1-x", False, {"_id": "a"}), Change("b", "1-x", False)], "2")
    assert waiting.others(2) == {"a": {"_id": "a"}, "b": None}
    waiting.finish("a")
    waiting.add(changes("a"), "3")
    assert waiting.others(2) == {"b": None, "a": None}


def test_what_changes_again_keeps_its_place_and_is_there_once() -> None:
    waiting = Backlog("0")
    waiting.add(changes("a", "b"), "2")
    waiting.add(changes("c", "a"), "4")
    assert list(waiting.others(9)) == ["a", "b", "c"]
    waiting.add(changes("a"), "5")
    assert waiting.done() == "0", "what came before its last change waits, too"


def test_how_far_all_is_done() -> None:
    waiting = Backlog("0")
    waiting.add(changes("a", "incoming:1"), "2")
    waiting.add(changes(), "5")
    waiting.add(changes("b"), "6")
    seen = []
    for one in ("b", "a", "incoming:1"):
        seen.append(waiting.done())
        waiting.finish([one])
    assert [*seen, waiting.done()] == ["0", "0", "0", "6"] and waiting.is_empty()
    waiting.add(changes("c"), "7")
    assert (waiting.done(), waiting.read) == ("6", "7")


@pytest.mark.parametrize(("finished", "done"), [("a", "0"), ("b", "0"), ("ab", "2"), ("abc", "3"), ("abcd", "4")])
def test_what_is_done_out_of_turn_moves_nothing(finished: str, done: str) -> None:
    waiting = Backlog("0")
    for ids, seq in (("ab", "2"), ("c", "3"), ("d", "4")):
        waiting.add(changes(*ids), seq)
    waiting.finish(finished)
    assert waiting.done() == done


def test_people_who_are_found_ahead_count_as_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "CAPACITY", 2)
    waiting = Backlog("0")
    waiting.add(changes("a", "b"), "2")
    assert waiting.is_full() and not waiting.has_people()
    waiting.add_people(changes("c", "incoming:1", "d"))
    assert waiting.has_people() and list(waiting.people(9)) == ["incoming:1"] and list(waiting.others(9)) == ["a", "b"]
    waiting.finish(["incoming:1", "a", "b"])
    assert (waiting.read, waiting.done(), waiting.is_full()) == ("2", "2", False)
