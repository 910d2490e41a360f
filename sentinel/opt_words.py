"""STOP and START: what a person writes to end all messages, or to have them again."""

from collections.abc import Iterable

from mjumbe import states, text
from mjumbe.documents import OPT_OUT, Document, Notice, milliseconds, notice_document, read_moment
from mjumbe.settings import Settings
from sentinel.forms import names_form
from sentinel.registers import OPTED_OUT, Entry, Registers
from sentinel.transitions import link_sender


def entries(docs: Iterable[Document], settings: Settings, registers: Registers) -> list[Entry]:
    """What these incoming messages say for the register of opt-outs, by the first word of their text.

    It is said of the number, whichever service the person wrote by. A form may have such a word for its code: a health
    worker whose report `STOP 12345` ends a patient's reminders is to get her own messages all the same.
    """
    opting_out = {text.first_word(word) for word in settings.sms.opt_out_words}
    opting_in = {text.first_word(word) for word in settings.sms.opt_in_words}
    found = []
    for doc in docs:
        message = str(doc["sms_message"].get("message") or "")
        word = text.first_word(message)
        if word and word in opting_out | opting_in and not names_form(message, settings.forms):
            value = OPTED_OUT if word in opting_out else None
            at = read_moment(doc.get("reported_date")) or milliseconds(states.now())
            found.append(Entry(link_sender.sender(doc, registers), value, at, f"the person wrote {word.upper()}"))
    return found


def notice(entry: Entry) -> Document:
    """What the register did not take, to wait where others' notices of opt-outs do until it is taken."""
    facts = {"update": "opt-out" if entry.value else "opt-in", "by": "the person"}
    return notice_document(Notice("sms", OPT_OUT, entry.number, f"{entry.number}:{entry.at}", facts), entry.at)
