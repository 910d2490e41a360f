"""What the machine is, and what processes use of it, from Linux's /proc."""

import os
import platform
import resource
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
LIBRARIES = ("mjumbe", "flask", "gunicorn", "ibmcloudant", "requests", "aiohttp")


def facts(folder: Path) -> dict[str, Any]:
    """The machine, the versions and the commit; `folder` is where the processes keep their files."""
    return {
        "machine": {
            "processor": _first_value(PROC / "cpuinfo", "model name"),
            "cores": len(os.sched_getaffinity(0)),
            "memory_mb": _kilobytes(PROC / "meminfo", "MemTotal") // 1024,
            "system": platform.platform(),
            "filesystem": _filesystem(folder),
            "load_before": round(os.getloadavg()[0], 2),
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        "commit": _commit(),
    }


def _commit() -> str:
    """The commit, with "+" when files differ from it."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _first_value(path: Path, name: str) -> str:
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "unknown")


def _kilobytes(path: Path, name: str) -> int:
    value = _first_value(path, name)
    return int(value.split()[0]) if value != "unknown" else 0


def _filesystem(folder: Path) -> str:
    """The type of the file system that holds `folder`: on tmpfs a write to disk costs nothing."""
    mounts = [line.split() for line in (PROC / "mounts").read_text().splitlines()]
    holding = [mount for mount in mounts if folder.is_relative_to(mount[1])]
    return max(holding, key=lambda mount: len(mount[1]))[2] if holding else "unknown"


class Meter:
    """What named processes, each with those that it started, use from now until `read`."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._trees = {name: _tree(pid) for name, pid in pids.items()}
        for tree in self._trees.values():
            for pid in tree:
                _reset_peak(pid)
        self._began = time.monotonic()
        self._before, self._machine_before = self._cpu(), _busy_seconds()

    def read(self) -> tuple[float, dict[str, float], dict[str, float]]:
        """Seconds, processor time in percent of one core, and the peak memory of each one's largest process in MB.

        `others` is what the rest of the machine used, a CouchDB that we did not start included.
        """
        seconds = time.monotonic() - self._began
        used = {name: after - self._before[name] for name, after in self._cpu().items()}
        used["others"] = max(0.0, _busy_seconds() - self._machine_before - sum(used.values()))
        cpu = {name: spent / seconds * 100 for name, spent in used.items() if name != "bench"}
        peaks = {name: max(_peak_mb(pid) for pid in tree) for name, tree in self._trees.items()}
        return seconds, cpu, peaks

    def _cpu(self) -> dict[str, float]:
        own = resource.getrusage(resource.RUSAGE_SELF)
        used = {name: sum(map(_cpu_seconds, tree)) for name, tree in self._trees.items()}
        return used | {"bench": own.ru_utime + own.ru_stime}


def peak_mb(pid: int) -> float:
    """The most memory that a process, or one that it started, has had, in MB."""
    return max(map(_peak_mb, _tree(pid)))


def _tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    parents = {int(folder.name): _stat(int(folder.name))[1] for folder in PROC.iterdir() if folder.name.isdigit()}
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == str(known)]
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; a process that is gone has none that say anything."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["0"] * 50


def _cpu_seconds(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS


def _busy_seconds() -> float:
    """What all processors have worked since the machine started."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, (PROC / "stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq) / TICKS


def _peak_mb(pid: int) -> float:
    try:
        return _kilobytes(PROC / str(pid) / "status", "VmHWM") / 1024
    except OSError:
        return 0.0


def _reset_peak(pid: int) -> None:
    """Let the peak begin at what the process has now (proc(5), clear_refs)."""
    try:
        (PROC / str(pid) / "clear_refs").write_text("5")
    except OSError:
        return
