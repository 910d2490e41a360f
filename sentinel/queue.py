"""The outbox's queue: which due messages go next, and which of them together."""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping

from mjumbe.documents import OutgoingMessage, Premium, Route

CAPACITY = 2_000  # bulk messages of one route kept in memory, with their documents
# Texts take turns, so one of which LITTLE waits must not wait in CouchDB for a broadcast that fills the memory.
SPARE = 500
LITTLE = 100

Lane = OrderedDict[tuple[str, Premium], deque[OutgoingMessage]]  # by text and how it is charged


class Queue:
    """Due messages: replies before bulk, equal texts together, texts taking turns. Not safe for threads by itself."""

    def __init__(self, number: Callable[[OutgoingMessage], str]) -> None:
        """`number` tells where a message goes: a request may not hold a number twice."""
        self._number = number
        self._lanes: OrderedDict[Route, tuple[Lane, Lane]] = OrderedDict()  # replies and bulk
        self._bulk: Counter[Route] = Counter()

    def is_full(self, route: Route) -> bool:
        """Whether no more bulk fits that goes by this route. What waits for a held service keeps out no other's."""
        return self._bulk[route] >= CAPACITY

    def fits(self, message: OutgoingMessage) -> bool:
        """Whether a message fits: always an answer; what is more than CAPACITY only of texts of which little waits."""
        if message.reply or not self.is_full(message.route):
            return True
        _, bulk = self._lanes[message.route]
        waiting = bulk.get(_lane_key(message), ())
        return len(waiting) < LITTLE and self._bulk[message.route] < CAPACITY + SPARE

    def bulk(self) -> Mapping[Route, int]:
        """How many bulk messages wait, by route."""
        return self._bulk

    def add(self, message: OutgoingMessage) -> None:
        replies, bulk = self._lanes.setdefault(message.route, (OrderedDict(), OrderedDict()))
        lane = replies if message.reply else bulk
        lane.setdefault(_lane_key(message), deque()).append(message)
        self._bulk[message.route] += not message.reply

    def routes(self) -> list[Route]:
        """The routes of what waits, those with replies first."""
        return sorted(self._lanes, key=lambda route: not self._lanes[route][0])

    def take(self, route: Route, size: int) -> list[OutgoingMessage]:
        """Up to `size` messages of one text, each number once; the rest of that text goes to the end of its lane."""
        if route not in self._lanes:
            return []
        replies, bulk = self._lanes[route]
        lane = replies or bulk
        key = next(iter(lane))
        waiting = lane.pop(key)
        taken: dict[str, OutgoingMessage] = {}
        again: list[OutgoingMessage] = []
        while waiting and len(taken) < size:
            message = waiting.popleft()
            if taken.setdefault(self._number(message), message) is not message:
                again.append(message)
        waiting.extendleft(reversed(again))
        if waiting:
            lane[key] = waiting
        self._lanes.move_to_end(route)
        self._bulk[route] -= sum(not message.reply for message in taken.values())
        if not replies and not bulk:
            del self._lanes[route]
            del self._bulk[route]
        return list(taken.values())


def _lane_key(message: OutgoingMessage) -> tuple[str, Premium]:
    return message.text, message.premium
