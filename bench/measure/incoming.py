"""Incoming messages: what the API takes, and how soon the sentinel has read them."""

import secrets
import time

from bench.bench import Bench, Floors, at, loads
from bench.bodies import message_id
from bench.figures import Floor
from mjumbe.documents import incoming_id
from mjumbe.gateways import africas_talking

FOLLOWED = 32  # connections at which the sentinel is waited for
LAST = 200  # messages that are looked at to see whether it is done


def measure(bench: Bench, floors: Floors) -> None:
    """Webhooks at each number of connections, the sentinel at work on them meanwhile."""
    for connections, most in bench.plan.requests.items():
        name, tag = f"webhooks, {at(connections)}", secrets.token_hex(4)
        url = bench.stage.callback_url("incoming-messages")
        before = bench.stage.stored()
        with bench.measured(name):
            began = time.time()
            answered = bench.load("webhook", url, connections, most, bench.plan.seconds, tag=tag)
            stored = bench.stage.stored() - before
            if stored != answered.good:
                bench.problem(f"{answered.good} were acknowledged and {stored} are stored")
            linked = _wait_until_linked(bench, tag, answered.good)
        bench.add_load(name, answered, *loads(floors, connections))
        if connections == FOLLOWED:
            floor = Floor("_bulk_docs of 100", floors.documents_per_second(100))
            bench.add(
                f"webhooks linked by the sentinel, {at(FOLLOWED)}",
                answered.good / (linked - began),
                "messages/s",
                floor,
            )


def _wait_until_linked(bench: Bench, tag: str, count: int) -> float:
    """Until the last messages bear the mark of the sentinel's first transition; when that was."""
    ids = [incoming_id(africas_talking.NAME, message_id(tag, n)) for n in range(max(0, count - LAST), count)]

    def linked() -> bool:
        return all(doc.get("transitions") for doc in bench.stage.fetch(ids))

    return bench.stage.wait("the sentinel has linked the senders", linked)
