"""What becomes of memory that is needed no more."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGE_BYTES = 128 * 1024
SPARE_BYTES = 1024 * 1024


def give_back_large_blocks() -> None:
    """Let each block of LARGE_BYTES or more go back to the system as soon as it is free.

    glibc does so at first, but takes the size of each such block for what is large from then on, up to 32 MB: after one
    bulk of some MB of JSON all smaller ones are cut from the heap, and leave holes there. Nothing where the C library
    is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_TRIM_THRESHOLD, SPARE_BYTES)
