"""The `mjumbe` command's way in, as small as can be: what it does is in mjumbe/cli.py, whose import takes a while."""

import io
import os
import signal
import sys


def main() -> None:
    """The command. A Ctrl-C while it is imported ends the process as the system would, without a traceback."""
    _open_streams()
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # else it is ignored, as in a shell's background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mjumbe.cli import main as command  # noqa: PLC0415  # see above

    signal.signal(signal.SIGINT, handler)
    command()


def _open_streams() -> None:
    """Open those of the three streams that we were started without: the next file to be opened, a database perhaps,
    would take their number, and whatever some library writes to that. Each takes the lowest that is free: its own.

    A character that a terminal cannot show ends no command: its code is written, as to stderr anyway.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: PTH123, SIM115  # for as long as we run
            os.set_inheritable(stream.fileno(), True)  # by the processes of `mjumbe up`
            setattr(sys, name, stream)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
