"""A process that ends when the one that started it is gone, even if that one had no time to say so (kill -9)."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of prctl(2)

# Loaded here: a process that was just forked should do as little as it can.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with(parent: int) -> None:
    """Have the kernel kill this process at the end of `parent`, the pid of the process that forked it.

    The kernel takes the end of the thread that forked for the parent's: fork in one that lasts, as the main one.
    Elsewhere than on Linux it does nothing.
    """
    if _libc is None:
        return
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)
