"""STOP and START: what a person writes to end all messages, or to have them again."""

from collections.abc import Iterable

from mjumbe import states, text
from mjumbe.couch import Document
from mjumbe.documents import milliseconds, read_moment
from mjumbe.settings import Settings
from sentinel.registers import OPTED_OUT, Entry, Registers
from sentinel.transitions import link_sender


def entries(docs: Iterable[Document], settings: Settings, registers: Registers) -> list[Entry]:
    """What these incoming messages say for the register of opt-outs, by the first word of their text.

    It is said of the number, whichever service the person wrote by.
    """
    opting_out = {text.first_word(word) for word in settings.sms.opt_out_words}
    opting_in = {text.first_word(word) for word in settings.sms.opt_in_words}
    found = []
    for doc in docs:
        word = text.first_word(str(doc["sms_message"].get("message") or ""))
        if word and word in opting_out | opting_in:
            value = OPTED_OUT if word in opting_out else None
            at = read_moment(doc.get("reported_date")) or milliseconds(states.now())
            found.append(Entry(link_sender.sender(doc, registers), value, at, f"the person wrote {word.upper()}"))
    return found
