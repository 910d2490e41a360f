"""constraints.txt pins every package that the scripts install."""

import re
from importlib.metadata import requires, version
from pathlib import Path

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
