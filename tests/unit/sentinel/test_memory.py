"""Large blocks of memory are the system's again when they are free."""

import ctypes
import subprocess
import sys

import pytest

# Whether a block of 1 MB is cut from the heap after one of 16 MB was freed.
LOOK = """
import ctypes
{}
large = bytearray(16 << 20)
del large
block = bytearray(1 << 20)
address = ctypes.addressof(ctypes.c_char.from_buffer(block))
for line in open("/proc/self/maps"):
    begin, end = (int(each, 16) for each in line.split()[0].split("-"))
    if begin <= address < end:
        print("heap" in line)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="it is about glibc")
@pytest.mark.parametrize(
    ("prepared", "is_cut"),
    [("", "True"), ("from sentinel.memory import give_back_large_blocks; give_back_large_blocks()", "False")],
)
def test_a_large_block_is_not_cut_from_the_heap(prepared: str, is_cut: str) -> None:
    run = subprocess.run([sys.executable, "-c", LOOK.format(prepared)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == is_cut
