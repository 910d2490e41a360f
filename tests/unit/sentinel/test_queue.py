"""The order in which messages leave: replies first, equal texts together, texts taking turns."""

import itertools

from mjumbe.documents import OutgoingMessage, Premium, Route
from sentinel.queue import CAPACITY, LITTLE, SPARE, Queue

serial = itertools.count()


def message(
    text: str, to: str = "", *, reply: bool = False, link_id: str | None = None, via: str | None = None
) -> OutgoingMessage:
    number = next(serial)
    to = to or f"+2547{number:08}"
    return OutgoingMessage(f"d{number}", f"u{number}", to, text, 0, reply, Premium(link_id=link_id), Route(via))


def queue(*messages: OutgoingMessage) -> Queue:
    made = Queue(lambda message: message.to.replace("0711", "+254711") if message.to[0] == "0" else message.to)
    for each in messages:
        made.add(each)
    return made


def drain(waiting: Queue, size: int, via: str | None = None) -> list[list[OutgoingMessage]]:
    return list(iter(lambda: waiting.take(Route(via), size), []))


def test_an_empty_queue() -> None:
    waiting = queue()
    assert (waiting.bulk(), waiting.routes(), waiting.take(Route(), 10)) == ({}, [], [])


def test_replies_go_first() -> None:
    bulk, reply = message("bulk"), message("reply", reply=True)
    waiting = queue(bulk, reply)
    assert drain(waiting, 10) == [[reply], [bulk]]


def test_equal_texts_go_together_up_to_the_size_in_their_order() -> None:
    equal = [message("news") for _ in range(5)]
    waiting = queue(equal[0], message("other"), *equal[1:])
    assert waiting.take(Route(), 3) == equal[:3]


def test_texts_take_turns() -> None:
    long = [message("long") for _ in range(5)]
    short = [message("short") for _ in range(2)]
    waiting = queue(*long, *short)
    assert drain(waiting, 2) == [long[:2], short, long[2:4], long[4:]]


def test_a_number_is_once_in_a_request_in_whatever_spelling() -> None:
    first, again, other = message("news", "+254711000001"), message("news", "0711000001"), message("news", "0711000002")
    waiting = queue(first, again, other)
    assert drain(waiting, 10) == [[first, other], [again]]


def test_what_differs_in_text_linkid_or_service_is_another_request() -> None:
    plain, linked, bound = message("x"), message("x", link_id="L1"), message("x", via="viber")
    waiting = queue(plain, linked, bound)
    assert set(waiting.routes()) == {Route(), Route("viber")}
    assert drain(waiting, 10) == [[plain], [linked]]
    assert waiting.take(Route("viber"), 10) == [bound]
    assert waiting.take(Route("pigeon"), 10) == []


def test_the_services_of_replies_come_first() -> None:
    waiting = queue(message("bulk"), message("reply", reply=True, via="viber"))
    assert waiting.routes() == [Route("viber"), Route()]


def test_only_bulk_fills_the_queue() -> None:
    waiting = queue(*(message("reply", reply=True) for _ in range(CAPACITY + 1)))
    assert not waiting.is_full(Route())
    for _ in range(CAPACITY):
        waiting.add(message("bulk"))
    assert waiting.is_full(Route()) and not waiting.is_full(Route("textbee"))
    assert waiting.bulk() == {Route(): CAPACITY}
    assert sum(map(len, drain(waiting, 100))) == 2 * CAPACITY + 1
    assert (waiting.is_full(Route()), waiting.bulk(), waiting.routes()) == (False, {}, [])


def test_what_has_left_leaves_room() -> None:
    waiting = queue(*(message("bulk") for _ in range(3)), message("reply", reply=True))
    for left in (3, 1):  # the reply goes first
        waiting.take(Route(), 2)
        assert waiting.bulk() == {Route(): left}


def test_a_full_queue_takes_answers_and_a_little_of_other_texts() -> None:
    waiting = queue(*(message("broadcast") for _ in range(CAPACITY)))
    assert not waiting.fits(message("broadcast"))
    for _ in range(LITTLE):
        assert waiting.fits(message("a nurse's"))
        waiting.add(message("a nurse's"))
    assert not waiting.fits(message("a nurse's"))
    for n in range(SPARE - LITTLE):
        assert waiting.fits(message(f"{n}"))
        waiting.add(message(f"{n}"))
    assert not waiting.fits(message("one more"))
    assert waiting.fits(message("one more", reply=True)) and waiting.fits(message("broadcast", via="textbee"))
