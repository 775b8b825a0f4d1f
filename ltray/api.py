"""What the commands do, for notebooks and scripts."""

from pathlib import Path

from ltray.analysis.results import Results, read_results
from ltray.experiment import Experiment
from ltray.files import at
from ltray.locate import DEFAULT_ROOT, experiment_of, locate_experiment, root_folder
from ltray.say import Say


def _silent(_line: str) -> None:
    pass


def load_experiment(path: Path | str) -> Experiment:
    """Read an experiment file.

    Raises:
        InvalidExperiment: with everything that is wrong in it.
        LtrayError: it is the experiment.yaml of a run, and its criterion is given with it.
    """
    return experiment_of(at(str(path), "path"))


def run_sweep(
    experiment: Experiment,
    root: Path | str = DEFAULT_ROOT,
    address: str | None = None,
    say: Say = _silent,
) -> Results:
    """Do everything of an experiment that is not done yet, and give its results.

    The same call again goes on where an interrupted one was; a finished sweep is only read.
    Uses the process's Ray session where there is one, else starts one and ends it.

    Args:
        experiment: from `load_experiment`.
        root: folder below which runs and shards lie.
        address: of a running Ray cluster; None starts Ray on this machine. A session that the
            process has is used, whatever the address.
        say: called with lines of progress, for example `print`.

    Raises:
        LtrayError: what is wrong with the experiment, its source or the cluster.
        StageFailed: the dense run diverged, or a part of the data could not be written.
    """
    from ltray.cluster.session import Connection
    from ltray.cluster.sweeping import sweep_run

    run = locate_experiment(experiment, root_folder(root))
    sweep_run(run, Connection(address), say)
    return read_results(run.folder.path)
