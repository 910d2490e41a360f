"""constraints.txt pins every package that the scripts install, and what runs without the checks' packages is named."""

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def installed(name: str, extras: frozenset[str], found: dict[str, str]) -> dict[str, str]:
    """The versions of a package's requirements, and of theirs, as they are installed here, added to `found`."""
    for line in requires(name) or ():
        needed = Requirement(line)
        if needed.marker and not any(needed.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            continue
        key = canonicalize_name(needed.name)
        if key not in found:
            found[key] = version(needed.name)
            installed(needed.name, frozenset(needed.extras), found)
    return found


def test_every_package_is_pinned_at_the_version_that_is_tested() -> None:
    pins = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)$", CONSTRAINTS.read_text()))
    pinned = {canonicalize_name(name): number for name, number in pins.items()}
    needed = installed("mjumbe", frozenset({"dev"}), {})
    assert "gevent" in needed
    assert needed.items() <= pinned.items()


IMPORTED = """
from gevent import monkey
if {modules!r}[0].startswith("api"):
    monkey.patch_all()
import importlib, json, sys
for module in {modules!r}:
    importlib.import_module(module)
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""


@pytest.mark.parametrize(
    "modules",
    [["api.server", "api.app"], ["sentinel.process", "mjumbe.cli", "mjumbe.commands.doctor", "mjumbe.commands.up"]],
    ids=["api", "others"],
)
def test_what_the_processes_import_comes_with_them(modules: list[str]) -> None:
    """A package that only the checks need is not there where mjumbe runs, whatever a library forgot to say."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED.format(modules=modules)], capture_output=True, text=True, check=True, timeout=60
    )
    owners = packages_distributions()
    imported = {canonicalize_name(owner) for name in json.loads(done.stdout) for owner in owners.get(name, ())}
    assert "gevent" in imported
    assert imported - {"mjumbe", "setuptools", "pip"} <= installed("mjumbe", frozenset(), {}).keys()
