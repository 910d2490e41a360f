"""The whole run: no process that a test started may have written a secret, a message's text or a number to its log."""

import signal
from typing import Any

import pytest

from tests import leaks

FOUND = pytest.StashKey[list[str]]()
MOST_SHOWN = 50


def pytest_configure(config: pytest.Config) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it, and so would every process that a test starts
    config.stash[FOUND] = []
    config.add_cleanup(leaks.listen())


@pytest.hookimpl(trylast=True)  # behind the end of the session's fixtures, which stop processes
def pytest_sessionfinish(session: pytest.Session) -> None:
    found = leaks.leaks()
    output = getattr(session.config, "workeroutput", None)
    if output is not None:  # a worker of pytest-xdist: the session that started it says so
        output["leaks"] = found
        return
    session.config.stash[FOUND] += found
    if session.config.stash[FOUND] and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist has ended."""
    node.config.stash[FOUND] += getattr(node, "workeroutput", {}).get("leaks", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash[FOUND]
    if found:
        terminalreporter.section("secrets, texts or numbers in logs", red=True, bold=True)
        for leak in found[:MOST_SHOWN]:
            terminalreporter.line(leak)
        terminalreporter.line(f"{len(found)} lines of logs show what no log may show.", red=True)
