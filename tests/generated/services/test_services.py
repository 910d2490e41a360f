"""Services, reports, incoming messages and kills made at random: nothing is lost, nothing is twice without a mark.

A seed that fails is printed; `SERVICES_SEED` repeats it. The turns that threads and processes take are not in it:
try it some times.
"""

import os
import time
from pathlib import Path

import pytest

from tests.generated.services.run import Run, Size

SMALL = Size(messages=50, letters=25, troubles=3, seconds=6.0, read_timeout=4, sentinels=1)
LARGE = Size(messages=300, letters=100, troubles=20, seconds=60.0, read_timeout=6, sentinels=2)
SEED = int(os.environ.get("SERVICES_SEED") or 0)


@pytest.mark.parametrize(
    "seed, size",
    [
        pytest.param(SEED or 3, SMALL, id="small"),
        *(
            pytest.param(SEED or int(time.time()) + n, LARGE, id=f"large-{n}", marks=pytest.mark.long)
            for n in range(1 if SEED else 5)
        ),
    ],
)
def test_nothing_is_lost_and_nothing_is_twice(seed: int, size: Size, tmp_path: Path) -> None:
    if os.environ.get("COUCH_URL"):
        pytest.skip("kills the store, which only the embedded one allows")
    print("SERVICES_SEED", seed)
    run = Run(seed, size, tmp_path)
    wrong = run.play()
    assert not wrong, "\n".join([f"in_doubt is {run.in_doubt}", *wrong])
