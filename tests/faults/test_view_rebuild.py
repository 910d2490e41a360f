"""A new version brings changed views to a large database: webhooks are answered meanwhile, the old views too."""

import shutil
import threading
from pathlib import Path

import pytest

from mjumbe import documents, setup, states
from mjumbe.couch import Couch, CouchError, NotFoundError
from tests.faults.rig import INCOMING, incoming, numbers, post_all, sizes, stored
from tests.integration.processes import eventually
from tests.integration.sentinel.world import World

SERVICES_GIVE_UP_AFTER = 5.0  # seconds: Africa's Talking and Viber
DESIGN = "_design/mjumbe"
STAGED = f"_design/{setup.STAGED}mjumbe"


def changed_designs(root: Path) -> Path:
    """The design documents of a version with one view more, each document emitting a lot."""
    designs = root / "designs"
    shutil.copytree(setup.DDOCS_PATH / setup.DDOCS_ROLE, designs)
    view = designs / "mjumbe" / "views" / "more"
    view.mkdir()
    (view / "map.js").write_text(
        "function (doc) { for (var i = 0; i < 20; i++) { emit([doc.reported_date, i], doc); } }"
    )
    return designs


def shows_more(couch: Couch) -> bool:
    """Whether the new view is there, and built. CouchDB has the old design document for a moment (ddoc_cache)."""
    try:
        return len(couch.main.view("mjumbe", "more", limit=1)) == 1
    except NotFoundError:
        return False


@sizes("count", [4_000], [50_000])
def test_a_changed_design_document_delays_no_webhook(
    own_world: World, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = own_world
    now = states.now()
    for start in range(0, count, 1_000):
        tasks = [documents.new_task(to, "text", now, state="delivered") for to in numbers(min(1_000, count - start))]
        assert all(
            saved.rev for saved in world.couch.main.bulk([documents.outgoing_document(t, now, None) for t in tasks])
        )
    api = world.start_api()
    before = world.couch.main.get(DESIGN)
    assert before is not None
    assert world.couch.main.view("mjumbe", "due", limit=1) == []
    newer = setup.read_designs(changed_designs(tmp_path))
    monkeypatch.setattr(setup, "read_designs", lambda: newer)
    upgrade = threading.Thread(target=setup.prepare, args=(Couch(world.couch_url),))
    upgrade.start()
    forms, took = [], []
    watched = world.couch.impatient(SERVICES_GIVE_UP_AFTER)
    while upgrade.is_alive():
        batch = [incoming(f"{len(forms) + n}", to, "HABARI") for n, to in enumerate(numbers(8))]
        began = states.now()
        assert post_all(api.url + INCOMING, batch, 8) == [200] * 8
        took.append((states.now() - began).total_seconds())
        forms += batch
        design = watched.main.get(DESIGN)
        assert design is not None, "the old one is in use until the new one is built"
        assert (design["views"] == before["views"]) == (design["_rev"] == before["_rev"])
    upgrade.join()
    print(f"{len(forms)} webhooks while the view was built, the slowest eight in {max(took):.2f} s")
    assert forms
    assert max(took) < SERVICES_GIVE_UP_AFTER
    assert len(stored(world.couch.main, forms)) == len(forms)
    after = world.couch.main.get(DESIGN)
    assert after is not None
    assert set(after["views"]) == {*before["views"], "more"}
    assert world.couch.main.get(STAGED) is None
    # Built already: it was swapped in with its index.
    eventually(lambda: shows_more(watched))
    assert "Traceback" not in api.log()


def test_killed_while_it_is_built_the_old_one_stays_and_the_next_start_finishes(
    own_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = own_world
    before = world.couch.main.get(DESIGN)
    assert before is not None
    newer = setup.read_designs(changed_designs(tmp_path))
    monkeypatch.setattr(setup, "read_designs", lambda: newer)
    with monkeypatch.context() as dying:

        def die(*_: object) -> bool:
            raise CouchError(0, "the process is gone")

        dying.setattr(setup, "is_built", die)
        with pytest.raises(CouchError):
            setup.prepare(world.couch)
    assert world.couch.main.get(DESIGN) == before
    assert world.couch.main.get(STAGED) is not None
    setup.prepare(world.couch)
    after = world.couch.main.get(DESIGN)
    assert after is not None
    assert "more" in after["views"]
    assert world.couch.main.get(STAGED) is None
