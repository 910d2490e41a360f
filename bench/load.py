"""Loads: what the generator, a process of its own, is told to do, and what it says of it."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

Kind = Literal["webhook", "report", "put", "bulk"]


@dataclass(frozen=True, slots=True)
class Job:
    """One load: `connections` that each send a request, wait for its answer, and send the next.

    It ends after `most` requests or `seconds`. `url` is the callback's URL with its key, or a database's; requests are
    numbered, and no two jobs with different `tag` make the same message. A `bulk` request writes `docs` documents.
    """

    kind: Kind
    url: str = field(repr=False)
    connections: int
    most: int
    seconds: float
    tag: str
    docs: int = 1
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a job. The first requests warm up: they count in `good` and `wrong` only."""

    good: int  # answers that say that the document was stored
    wrong: int  # other answers, and connections that broke
    first_wrong: str  # the beginning of the first such answer
    rate: float  # requests a second
    p50_ms: float
    p99_ms: float
    cpu_percent: float  # of one core, by the generator itself


class LoadError(RuntimeError):
    """A load that measured nothing."""


class Generator:
    """The generator process, which takes one job after the other: `python -m bench.generator`."""

    def __init__(self, popen: "subprocess.Popen[str]") -> None:
        self._popen = popen

    @property
    def pid(self) -> int:
        return self._popen.pid

    def run(self, job: Job) -> Answered:
        """Run a job to its end. Raises LoadError."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(json.dumps(asdict(job)) + "\n")
        self._popen.stdin.flush()
        line = self._popen.stdout.readline()
        if not line:
            raise LoadError("the load generator ended; its own message is above")
        answer = json.loads(line)
        if "error" in answer:
            raise LoadError(f"{job}: {answer['error']}")
        return Answered(**answer)
