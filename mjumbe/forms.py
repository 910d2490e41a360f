"""CHT's SMS forms, as far as mjumbe knows them: it tells a report from other messages, and does not read it."""

import re
from collections.abc import Mapping
from typing import Any

# CHT's text forms begin with their code; those of its Java app (Muvuku) with a version, and the code behind it.
CODE = re.compile(r"\s*(?:\d+!)?([^\s!#;,:]+)")


def names_form(text: str, forms: Mapping[str, Any]) -> bool:
    """Whether a message begins with the code of one of the settings' forms, in any case."""
    found = CODE.match(text)
    return found is not None and found[1].casefold() in {code.casefold() for code in forms}
