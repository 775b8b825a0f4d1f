"""How this process holds memory."""

import ctypes

# Parameters of glibc's mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

KEPT_BYTES = 256 * 1024 * 1024
LARGEST_KEPT_BYTES = 32 * 1024 * 1024  # the most that mallopt takes


def keep_freed_memory() -> None:
    """Have malloc keep freed memory instead of handing it back to the kernel at once.

    The pixels of one image are freed before the next are made. Every page that was handed back in
    between is zeroed by the kernel when it is touched again, which takes a quarter of the time of
    decoding. Where the C library is not glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or a CPU; torch has a class of its own for some."""
    told = ("out of memory", "can't allocate memory", "_ALLOC_FAILED")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(part in str(error) for part in told)
    )
