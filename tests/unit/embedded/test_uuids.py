"""Ids of documents that came without one."""

import re
from itertools import islice

from embedded.uuids import sequential_uuids


def test_ids_grow_until_their_beginning_changes() -> None:
    made = list(islice(sequential_uuids(), 50_000))
    assert len(set(made)) == len(made)
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in made)
    beginnings = list(dict.fromkeys(one[:26] for one in made))
    assert 4 < len(beginnings) < 20
    assert made == sorted(made, key=lambda one: (beginnings.index(one[:26]), one))
