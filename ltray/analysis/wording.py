"""Numbers as a reader wants them: 97.4 %, -0.6 points, 2 h 05 min."""

from ltray.experiment import Experiment, as_written, decimal
from ltray.lottery.mask_names import scored

_MINUS, _THIN = "\N{MINUS SIGN}", "\N{NARROW NO-BREAK SPACE}"


def percent(share: float, places: int = 1) -> str:
    """0.974 -> 97.4 %."""
    return f"{100 * share:.{places}f}{_THIN}%"


def level(sparsity: float) -> str:
    """A sparsity in percent, with the decimals that were written: 0.935 -> 93.5 %."""
    return f"{format((decimal(sparsity) * 100).normalize() + 0, 'f')}{_THIN}%"


def kept(density: float) -> str:
    """A density in percent, to three digits: 0.01004 -> 1 %."""
    return f"{100 * density:.3g}{_THIN}%"


def epoch(reset_epoch: float) -> str:
    """A reset point as it was written: 2.0 -> 2."""
    return as_written(reset_epoch)


def points(difference: float, places: int = 1) -> str:
    """A difference of two accuracies in percentage points: -0.006 -> -0.6, with a true minus."""
    return signed(100 * difference, places)


def signed(value: float, places: int = 2) -> str:
    """A difference of any kind, with a true minus: -0.6 -> -0.60; zero has no sign."""
    text = f"{value:+.{places}f}"
    if not text.strip("+-0."):
        text = text.lstrip("+-")
    return text.replace("-", _MINUS)


def margin_points(margin: float) -> str:
    """A margin with the decimals that were written: 0.02 -> 2 points, 0.0025 -> 0.25 points."""
    number = format((decimal(margin) * 100).normalize() + 0, "f")
    return f"{number} point{'' if number == '1' else 's'}"


def pruning(experiment: Experiment) -> str:
    """How masks are made: magnitude of the final weights, in one shot, global."""
    prune = experiment.prune
    weights = {"final": "final", "reset": "reset point's", "init": "initial"}[scored(prune)]
    of = "" if prune.criterion == "random" else f" of the {weights} weights"
    how = "in one shot"
    if prune.style == "iterative":
        of, how = " of the trained weights", "level by level"
    return f"{prune.criterion.rpartition(':')[2]}{of}, {how}, {prune.scope}"


def chance(over: str) -> str:
    """What an interval or a test is over, and what it is not."""
    return {
        "images": "images, not over seeds",
        "replicates": "replicates",
        "retrainings": "retrainings of one seed",
    }[over]


def duration(seconds: float) -> str:
    """The two largest units that matter: 0.4 s, 12 s, 4 min 05 s, 2 h 13 min."""
    if seconds < 59.95:
        return f"{seconds:.1f}{_THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{_THIN}min {rest:02d}{_THIN}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}{_THIN}h {minutes:02d}{_THIN}min"


def quantity(number: int, noun: str) -> str:
    """1 ticket, 2 tickets, 50,200 weights, 10 classes."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def data_size(count: int) -> str:
    """Bytes in powers of a thousand: 157_300_000_000 -> 157.3 GB."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.95:
            break
        size, unit = size / 1000, larger
    return f"{size:,.0f}{_THIN}{unit}" if unit == "bytes" else f"{size:,.1f}{_THIN}{unit}"


def listed(words: list[str]) -> str:
    """a, b and c."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
