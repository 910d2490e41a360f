"""The `mjumbe` command's way in, as small as can be: what it does is in mjumbe/cli.py, whose import takes a while."""

import signal


def main() -> None:
    """The command. A Ctrl-C while it is imported ends the process as the system would, without a traceback."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # else it is ignored, as in a shell's background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mjumbe.cli import main as command  # noqa: PLC0415  # see above

    signal.signal(signal.SIGINT, handler)
    command()


if __name__ == "__main__":
    main()
