"""An event that says when to stop: SIGTERM, Ctrl-C, or a terminal that is gone."""

import queue
import signal
import threading


def stop_event() -> threading.Event:
    """An event that SIGTERM, SIGINT and SIGHUP set from now on. Call it in the main thread.

    The handlers, which interrupt the main thread, do not set it themselves: while that thread waits for the event it
    holds, for moments, the lock that setting needs, and would wait for itself for ever. A SimpleQueue never does.
    """
    stop, signals = threading.Event(), queue.SimpleQueue[int]()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # under nohup, to outlive its terminal
        signal.signal(number, lambda number, _: signals.put(number))

    def wait() -> None:
        signals.get()
        stop.set()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    return stop
