"""Runs a program that ends with whoever started it: `python -m tests.support.leash PROGRAM ARGUMENT...`."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Ask the kernel for a TERM when our parent dies, and become the program."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main(sys.argv[1:])
