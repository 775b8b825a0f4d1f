"""How much faster p workers are: the laws of Amdahl, Gustafson, and Karp and Flatt."""


def amdahl(workers: float, serial: float, beside: float = 0.0) -> float:
    """Speed-up S(p) = 1 / (s + (1 - s) / p) of a job of fixed size.

    Where a part b can be done beside the serial one, which all the rest waits for, the law holds
    for these two and for the rest: S(p) = 1 / (max(s, (s + b) / p) + (1 - s - b) / p).

    Args:
        workers: p, at least 1.
        serial: s in [0, 1], the share of the job's time on one worker that p do not share.
        beside: b, a share of that time too.

    Source: Amdahl 1967, "Validity of the single processor approach to achieving large scale
        computing capabilities".
    """
    first = max(serial, (serial + beside) / workers)
    return 1 / (first + (1 - serial - beside) / workers)


def amdahl_limit(serial: float) -> float:
    """What `amdahl` comes to with ever more workers: 1 / s; infinite where nothing is serial."""
    return 1 / serial if serial else float("inf")


def gustafson(workers: float, serial: float) -> float:
    """Scaled speed-up S(p) = s + (1 - s) p of a job whose parallel part grows with p.

    Args:
        workers: p, at least 1.
        serial: s in [0, 1], the share of the time on p workers that is not shared.

    Source: Gustafson 1988, "Reevaluating Amdahl's law".
    """
    return serial + (1 - serial) * workers


def karp_flatt(workers: float, speedup: float) -> float:
    """The serial share that a measured speed-up stands for: (1/S - 1/p) / (1 - 1/p).

    Args:
        workers: p, above 1.
        speedup: S as measured; a share below 0 means that p workers did less than one alone.

    Source: Karp and Flatt 1990, "Measuring parallel processor performance".
    """
    return (1 / speedup - 1 / workers) / (1 - 1 / workers)
