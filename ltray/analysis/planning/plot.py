"""A plan as a picture: speed-up against workers, with the laws."""

from pathlib import Path

from ltray.analysis.planning.planned import Plan
from ltray.errors import LtrayError

KINDS = (".svg", ".png", ".pdf")


def check_plot(path: Path) -> None:
    """Refuse what cannot become a picture, before anything is measured.

    Raises:
        LtrayError: another ending, or no such folder.
    """
    if path.suffix not in KINDS:
        raise LtrayError("--plot", f"{path} ends in none of {', '.join(KINDS)}", "rename it")
    if not path.absolute().parent.is_dir():
        raise LtrayError("--plot", f"there is no folder {path.parent}", "make it first")


def plot(plan: Plan, path: Path) -> None:
    """Speed-up of training and from command to report on 1..P workers, with Amdahl's curve.

    Raises:
        LtrayError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    workers = [on.workers for on in plan.on]
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    most = max(workers)
    curve = [1 + (most - 1) * part / 200 for part in range(201)]
    axes.plot(curve, curve, color="#888888", linewidth=1, label="as many times as workers")
    amdahl = [plan.amdahl(number) for number in curve]
    axes.plot(curve, amdahl, color="#14608f", linestyle="--", label="Amdahl's law")
    first = plan.on[0]
    training = [plan.work.training.likely / on.training.likely for on in plan.on]
    axes.plot(workers, training, "o-", color="#14608f", label="dense run and retrainings")
    if first.workers == 1:
        whole = [first.whole.likely / on.whole.likely for on in plan.on]
        axes.plot(workers, whole, "s-", color="#c2500a", label="command to report")
    axes.set_xlabel("workers")
    axes.set_ylabel("times as fast as one worker")
    axes.set_title(plan.experiment.name)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise LtrayError("--plot", f"{path}: {error.strerror}", "name another file") from None
