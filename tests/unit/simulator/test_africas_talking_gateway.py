"""Africa's Talking's gateway against its twin, over real HTTP: sending, premium, subscriptions, the inbox, opt-outs."""

from __future__ import annotations

import asyncio
from typing import Any

from mjumbe import settings
from mjumbe.documents import Premium
from mjumbe.gateways.africas_talking import AfricasTalking
from mjumbe.gateways.base import Batch, Wiring
from mjumbe.states import State

NUMBER, OTHER = "+254711000001", "+254711000002"


def gateway(lab: Any, **section: Any) -> AfricasTalking:
    """The account of the simulator, whose short code is 22000."""
    section |= {"username": "sandbox", "base_url": lab.simulator.url.rstrip("/"), "read_timeout": 20}
    values = settings.parse({"sms": {"reply_to": "22000", "africas_talking": section}})
    return AfricasTalking(Wiring(values, lambda _: "right-key"))


def test_subscriptions(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        asked = gateway(lab)
        for number in (NUMBER, OTHER):
            check = await asyncio.to_thread(asked.subscribe, number, "22000", "afya")
            assert check.ok, check.says
        assert await asyncio.to_thread(asked.subscribers, "22000", "afya") == [NUMBER, OTHER]
        assert await asyncio.to_thread(asked.subscribers, "22000", "maji") == []
        assert (await asyncio.to_thread(asked.unsubscribe, NUMBER, "22000", "afya")).ok
        again = await asyncio.to_thread(asked.unsubscribe, NUMBER, "22000", "afya")
        assert not again.ok and "Subscription not found" in again.says
        assert await asyncio.to_thread(asked.subscribers, "22000", "afya") == [OTHER]

    play(scenario)


def test_the_inbox(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        asked = gateway(lab)
        for text, date in (("first", "2026-01-01T06:04:45Z"), ("second", "2026-01-01 06:04:46")):
            await lab.json("POST", "/incoming", {"from": NUMBER, "text": text, "date": date})
        await lab.json("POST", "/incoming", {"from": NUMBER, "text": "just now"})
        inbox = await asyncio.to_thread(asked.inbox, "0")
        assert [(message.ref, message.sender, message.text) for message in inbox.messages] == [
            ("inbox-1", NUMBER, "first"),
            ("inbox-2", NUMBER, "second"),
        ]
        assert inbox.cursor == "2"
        assert (await asyncio.to_thread(asked.inbox, "2")).messages == []

    play(scenario)


def test_an_opt_out_and_a_premium_answer(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        [outcome] = await asyncio.to_thread(gateway(lab).send, Batch("Habari", ("+254711099406",)))
        assert (outcome.state, outcome.opted_out) == (State.DENIED, True)
        premium = gateway(lab, keyword="afya", retry_duration_hours=4, enqueue=True)
        [outcome] = await asyncio.to_thread(premium.send, Batch("Habari", (NUMBER,), Premium(link_id="L1")))
        assert (outcome.state, outcome.opted_out) == (State.SENT, False)
        [request] = (await lab.json("GET", "/requests?last=1"))["requests"]
        assert (request["link_id"], request["from"]) == ("L1", "22000")
        options = {"bulkSMSMode": "0", "enqueue": "1", "keyword": "afya", "retryDurationInHours": "4"}
        assert request["options"] == options

    play(scenario)
