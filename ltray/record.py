"""experiment.yaml of a run: every key as it was used, under a few lines that name the run."""

import re
from pathlib import Path

import yaml

from ltray.errors import LtrayError
from ltray.experiment import Experiment, Model
from ltray.experiment_file import read_record
from ltray.files import at, is_local, is_there, lies_below, write_whole
from ltray.given import GivenExperiment
from ltray.layout import RunFolder
from ltray.lottery.criterion_names import KEY, by_content, check_criterion
from ltray.own_code import is_own_code
from ltray.run import Run

HEADER = re.compile(
    r"# id: (\S+)\n# fingerprint: ([0-9a-f]+)\n"
    r"(?:# network\.py: sha256 ([0-9a-f]{64})\n)?(?:# criterion: sha256 ([0-9a-f]{64})\n)?"
)


def recorded_experiment(folder: RunFolder) -> Experiment:
    """The experiment of a folder's experiment.yaml, of a run or of tickets that came to one.

    A person's own criterion is named by its content, as in the names of masks.

    Raises:
        LtrayError: it cannot be read.
    """
    experiment = read_record(folder.experiment)
    header = HEADER.match(folder.experiment.read_text())
    criterion = experiment.prune.criterion
    if isinstance(experiment, GivenExperiment) or not is_own_code(criterion):
        return experiment
    code = check_criterion(criterion, header[4] if header is not None else None)
    assert code is not None
    return with_criterion(experiment, by_content(code))


def write_experiment(run: Run) -> None:
    """Write experiment.yaml of a run: id, fingerprint, and every key with its value.

    A person's own network is copied beside it, and named there by that copy: the folder is whole.
    A person's own criterion is named where it lies, with its hash, and never read from the run.
    """
    header = f"# id: {run.folder.path.name}\n# fingerprint: {run.fingerprint}\n"
    experiment = run.experiment
    if run.network is not None:
        _write_if_other(run.folder.network, run.network.content)
        header += f"# {run.folder.network.name}: sha256 {run.network.sha256}\n"
        experiment = with_arch(experiment, f"{run.folder.network.name}:{run.network.function}")
    if run.criterion is not None:
        header += f"# criterion: sha256 {run.criterion.sha256}\n"
        experiment = with_criterion(experiment, f"{run.criterion.path}:{run.criterion.function}")
    text = header + yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)
    _write_if_other(run.folder.experiment, text.encode())


def check_criterion_lies_outside(folder: RunFolder, criterion: str, sha256: str | None) -> None:
    """Refuse a criterion that ltray cannot have written down, or that lies among the runs: whoever
    gives a person a run's folder must not give code with it.
    """
    if not is_own_code(criterion):
        return
    text, _, _ = criterion.rpartition(":")
    path, found = at(text, KEY), None
    if sha256 is None:
        found = f"prune.criterion, {path}, has no hash in the first lines"
    elif is_local(path) and not path.is_absolute():
        found = f"prune.criterion, {path}, is written from a folder, as no command writes it"
    elif lies_below(path, folder.path.parent):
        found = f"prune.criterion, {path}, lies among the runs"
    if found is not None:
        mend = "give the experiment's own file: code is not run on the word of a run's folder"
        raise LtrayError(str(folder.experiment), found, mend)


def with_arch(experiment: Experiment, arch: str) -> Experiment:
    """The experiment with its network named otherwise."""
    return experiment.model_copy(update={"model": Model(arch=arch)})


def with_criterion(experiment: Experiment, criterion: str) -> Experiment:
    """The experiment with its criterion named otherwise."""
    prune = experiment.prune.model_copy(update={"criterion": criterion})
    return experiment.model_copy(update={"prune": prune})


def _write_if_other(path: Path, content: bytes) -> None:
    if not is_there(path) or path.read_bytes() != content:
        write_whole(path, content)
