"""Durations, speed-ups and ranges as a plan prints them: plain text that nothing cuts."""

from ltray.analysis.planning.estimate import Estimate

SHORT_SECONDS = 900.0


def hours(seconds: float) -> str:
    """Decimal hours with two places, and hours and minutes: `131.25 h = 131 h 15 min`.

    Of less than a quarter of an hour the seconds are told too.
    """
    whole, minutes = divmod(round(seconds / 60), 60)
    text = f"{seconds / 3600:,.2f} h = {whole:,} h {minutes:02d} min"
    return text if seconds >= SHORT_SECONDS else f"{text} ({seconds:,.0f} s)"


def spread(estimate: Estimate) -> str:
    """`157.50 to 157.61 h`, below a quarter of an hour `27 to 68 s`; empty without a range."""
    low, _, high = estimate.ends
    unit, per, places = ("s", 1, 0) if high < SHORT_SECONDS else ("h", 3600, 2)
    first, last = (f"{end / per:,.{places}f}" for end in (low, high))
    return "" if first == last else f"{first} to {last} {unit}"


def times(speedup: float) -> str:
    """A speed-up or an efficiency, with two decimals."""
    return f"{speedup:.2f}"


def short(seconds: float) -> str:
    """The unit that fits: `43 s`, `2.2 min`, `12 min`, `131.3 h`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 9.95 * 60:
        return f"{seconds / 60:.1f} min"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"


def about(estimate: Estimate) -> str:
    """`43 s (27 s to 68 s)`; without a range where there is none to speak of."""
    low, likely, high = (short(end) for end in estimate.ends)
    return likely if low == high else f"{likely} ({low} to {high})"
