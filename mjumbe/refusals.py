"""Refuse what must not go out: when it falls due, and again before it is given to a service or a phone, for settings
and opt-outs may change while a message waits."""

from collections.abc import Callable
from datetime import datetime

from mjumbe import phone_numbers, states
from mjumbe.documents import message_of
from mjumbe.settings import Settings
from mjumbe.states import State, Task


def refuse(task: Task, settings: Settings, has_opted_out: Callable[[str], object], at: datetime) -> bool:
    """Deny a due task by the settings (deny list, short numbers, names, our own number), or because its recipient opted
    out, of which `has_opted_out` is asked with the number that is written to. Answers whether it was denied."""
    recipient = str(message_of(task).get("to") or "")
    refusal = phone_numbers.refusal(recipient, settings)
    if refusal is not None:
        return states.move(task, State.DENIED, at, refusal.reason, rule=refusal.code)
    if has_opted_out(phone_numbers.number_to_send_to(recipient, settings)):
        return states.move(task, State.DENIED, at, "The person opted out of messages.", rule="opted_out")
    return False
