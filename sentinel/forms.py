"""CHT's SMS forms, as far as mjumbe knows them: it tells a report from other messages, and does not read it."""

import re
from collections.abc import Mapping
from typing import Any

# As getFormCode in CHT's smsparser.js: text forms begin with their code; those of its Java app (Muvuku) with a version
# (`1!`, `J1!`), and the code between that and another exclamation mark.
FIRST = re.compile(r"\s*([^\s!\-,:;#]+)")
BEHIND_VERSION = re.compile(r"\s*[A-Za-z]?\d+!([^!]*)!")


def names_form(text: str, forms: Mapping[str, Any]) -> bool:
    """Whether a message begins with the code of one of the settings' forms, in any case."""
    codes = {code.casefold() for code in forms}
    return any(found[1].casefold() in codes for found in (FIRST.match(text), BEHIND_VERSION.match(text)) if found)
