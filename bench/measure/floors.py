"""The floors: what the store and the server do on this machine, in this run, without mjumbe's part."""

from bench.bench import Bench, Floors, at
from bench.load import Answered
from bench.machine import peak_mb
from bench.processes import Process

GROUP = "floors"
BULKS = (100, 500)
MOST = 1_000_000  # requests: their time is over before


def measure(bench: Bench) -> Floors:
    """All floors, in a database without views and on a server without an API, while mjumbe is idle beside them."""
    bench.group = GROUP
    empty, empty_mb = _empty_routes(bench)
    lab = bench.stage.lab
    couch = lab.couch(f"{bench.stage.couch.name}-floor")
    couch.main.create()
    try:
        url, cookie = lab.database_url(couch.name), lab.cookie()
        return Floors(_puts(bench, url, cookie), _bulks(bench, url, cookie), empty, empty_mb)
    finally:
        couch.main.drop()


def _puts(bench: Bench, url: str, cookie: dict[str, str]) -> dict[int, Answered]:
    found = {}
    for connections in bench.plan.requests:
        name = f"single PUTs, {at(connections)}"
        with bench.measured(name):
            found[connections] = bench.load("put", url, connections, MOST, bench.plan.floor_seconds, headers=cookie)
        bench.add_load(name, found[connections])
    return found


def _bulks(bench: Bench, url: str, cookie: dict[str, str]) -> dict[int, Answered]:
    """One connection, as the intake and the sentinel write."""
    found = {}
    for docs in BULKS:
        name = f"_bulk_docs of {docs}"
        with bench.measured(name):
            found[docs] = bench.load("bulk", url, 1, MOST, bench.plan.floor_seconds, docs=docs, headers=cookie)
        bench.add(name, found[docs].rate * docs, "documents/s")
        bench.add(f"{name}, p50", found[docs].p50_ms, "ms")
    return found


def _empty_routes(bench: Bench) -> tuple[dict[int, Answered], float]:
    process = Process("empty", ["bench.empty_route"], {}, bench.stage.lab.folder)
    found = {}
    try:
        url = f"{process.url()}/empty"
        for connections in bench.plan.requests:
            name = f"empty route, {at(connections)}"
            with bench.measured(name, {"empty": process.pid}):
                found[connections] = bench.load("webhook", url, connections, MOST, bench.plan.floor_seconds)
            bench.add_load(name, found[connections])
        return found, peak_mb(process.pid)
    finally:
        process.stop()
