"""From an experiment file, or a run's folder, to the Run that it means."""

from pathlib import Path
from typing import NamedTuple

from ltray.data.fingerprint import source_facts
from ltray.data.pixels import pixels_of
from ltray.errors import InvalidExperiment, LtrayError
from ltray.experiment import (
    Experiment,
    SourceFacts,
    data_id,
    experiment_id,
    resolve,
)
from ltray.experiment_file import read_experiment, read_record
from ltray.files import at, is_local, is_there
from ltray.given import GivenExperiment
from ltray.layout import RunFolder, data_folder, run_folder
from ltray.lottery.criterion_names import by_content, check_criterion
from ltray.models.names import check_arch
from ltray.own_code import OwnCode, is_own_code
from ltray.record import HEADER, check_criterion_lies_outside, with_arch, with_criterion
from ltray.run import Run
from ltray.say import Say

DEFAULT_ROOT = Path("runs")


class _Own(NamedTuple):
    """A person's own code that an experiment names; None where a part of it has a name."""

    network: OwnCode | None
    criterion: OwnCode | None


def experiments_folder() -> Path:
    """Where the experiments that come with ltray lie: beside the package, or in the wheel."""
    package = Path(__file__).parent
    beside = package.parent / "experiments"
    return beside if beside.is_dir() else package / "_experiments"


def root_folder(root: Path | str) -> Path:
    """The folder of runs and shards that a person named, on a disk or in an object store.

    Raises:
        LtrayError: it is no folder, or an address that nothing here reads.
    """
    folder = at(str(root), "--root")
    if is_local(folder) and folder.exists() and not folder.is_dir():
        raise LtrayError("--root", f"{folder} is not a folder", "name another one")
    return folder


def locate(path: Path, root: Path | None = None) -> Run:
    """The run of an experiment file, or of the folder of an earlier run.

    Args:
        path: EXPERIMENT.yaml, or a run's folder.
        root: where runs lie; `./runs` when None, or where the run's folder lies.

    Raises:
        LtrayError: whatever is wrong with the file, its network or its source.
    """
    if not path.is_dir():
        return locate_experiment(experiment_of(path), root or DEFAULT_ROOT)
    folder = RunFolder(path.resolve())
    if root is not None and root.resolve() != folder.path.parent:
        raise LtrayError("--root", f"{path} does not lie in {root}", "leave --root out")
    return _read_run(folder)


def experiment_of(path: Path) -> Experiment:
    """Read an experiment's file, which may be the experiment.yaml of a run's folder.

    Raises:
        LtrayError: whatever is wrong with it; it is a run's, and its criterion is given with it.
    """
    experiment = read_experiment(path)
    folder = RunFolder(path.parent.resolve())
    if path.name == folder.experiment.name and (header := HEADER.match(path.read_text())):
        check_criterion_lies_outside(folder, read_record(path).prune.criterion, header[4])
    return experiment


def locate_experiment(experiment: Experiment, root: Path) -> Run:
    """The run of an experiment; where its source is absent, the one run that it fits.

    Raises:
        InvalidExperiment: no such network or criterion; the source is wrong, or absent and no run
            fits.
    """
    run = network = criterion = None
    problems = []
    try:
        network = check_arch(experiment.model.arch)
    except LtrayError as error:
        problems.append(error)
    try:
        criterion = check_criterion(experiment.prune.criterion)
    except LtrayError as error:
        problems.append(error)
    try:
        run = _located(experiment, _Own(network, criterion), root.resolve())
    except LtrayError as error:
        problems.append(error)
    if problems or run is None:
        raise InvalidExperiment(problems)
    return run


def experiment_and_run(path: Path, root: Path | None, say: Say) -> tuple[Experiment, Run | None]:
    """The experiment as its run has it; as the file has it, and None, where its source is absent.

    Args:
        path, root: as of `locate`.
        say: told what is wrong with the source.

    Raises:
        LtrayError: whatever else is wrong with the file, its network or its source.
    """
    try:
        run = locate(path, root)
    except InvalidExperiment as error:
        if any(problem.args[0] != "data.path" for problem in error.args[0]):
            raise
        for _, found, _ in (problem.args for problem in error.args[0]):
            say(f"without the source's own files: {found}")
        return experiment_of(path), None
    return run.experiment, run


def check_begun(run: Run) -> None:
    """Refuse a run that has no folder.

    Raises:
        LtrayError: it was never begun here.
    """
    if not run.folder.path.is_dir():
        mend = "sweep it first, or give the --root that its run lies in"
        raise LtrayError(str(run.folder.path), "there is no such run yet", mend)


def _located(experiment: Experiment, own: _Own, root: Path) -> Run:
    path = experiment.data.path
    try:
        return _run(experiment, own, source_facts(experiment.data), root)
    except LtrayError as absent:
        fitting = _fitting(experiment, own, root) if absent.args[0] == "data.path" else []
        if not fitting:
            raise
        if len(fitting) > 1:
            names = " and ".join(str(run.folder.path) for run in fitting)
            mend = "give one of these folders in place of the experiment"
            found = f"two runs fit: {names}; and {path}, which would tell them apart, is absent"
            raise LtrayError(str(root), found, mend) from absent
        return fitting[0]


def _run(experiment: Experiment, own: _Own, facts: SourceFacts, root: Path) -> Run:
    resolved = resolve(experiment, facts)
    data = resolved.data
    if data.image_size is None:
        found = "missing, and the source's images are not all square and alike"
        raise LtrayError("data.image_size", found, "write the pixels per side to store")
    if data.crop_size is not None and data.crop_size > data.image_size:
        found = f"{data.crop_size} is larger than the source's images, {data.image_size} pixels"
        raise LtrayError("data.crop_size", found, f"write at most {data.image_size}")
    folder = run_folder(root, experiment_id(_by_content(resolved, own.network), facts.fingerprint))
    if own.network is not None:
        resolved = with_arch(resolved, f"{folder.network}:{own.network.function}")
    if own.criterion is not None:
        resolved = with_criterion(resolved, by_content(own.criterion))
    return Run(
        experiment=resolved,
        fingerprint=facts.fingerprint,
        pixels=pixels_of(experiment.data, facts),
        folder=folder,
        data=data_folder(root, data_id(data, facts.fingerprint)),
        network=own.network,
        criterion=own.criterion,
    )


def _by_content(experiment: Experiment, network: OwnCode | None) -> Experiment:
    """The experiment with its own network named by what its file holds, wherever that lies."""
    if network is None:
        return experiment
    return with_arch(experiment, f"{network.sha256}:{network.function}")


def _fitting(experiment: Experiment, own: _Own, root: Path) -> list[Run]:
    """The experiment as each run under the root whose dense run it would share.

    Raises:
        LtrayError: there is none, and what is wrong with one of its name.
    """
    found, faults = [], []
    for path in sorted(root.glob(f"{experiment.name}-{'[0-9a-f]' * 8}/experiment.yaml")):
        try:
            run = _read_run(RunFolder(path.parent))
        except LtrayError as fault:
            faults.append(fault)
            continue
        candidate = _run(experiment, own, _facts(run.experiment, run.fingerprint), root)
        if candidate.folder == run.folder:
            found.append(candidate)
    if faults and not found:
        raise faults[0]
    return found


def _read_run(folder: RunFolder) -> Run:
    """The run of a folder, whose experiment.yaml must still say what gave the folder its name."""
    if not is_there(folder.experiment):
        found = f"is no run: it has no {folder.experiment.name}"
        raise LtrayError(str(folder.path), found, "name the folder <root>/<name>-<8 hex>")
    header = HEADER.match(folder.experiment.read_text())
    experiment = read_record(folder.experiment)
    if isinstance(experiment, GivenExperiment):
        found = f"holds tickets of {experiment.given_by} on another experiment's data, not a run"
        mend = f"name that experiment's run, {folder.path.parent}, or the source's"
        raise LtrayError(str(folder.path), found, mend)
    if header is None:
        found = "does not start with the lines '# id:' and '# fingerprint:'"
        raise LtrayError(str(folder.experiment), found, "give the experiment's own file instead")
    arch = experiment.model.arch
    network = check_arch(arch) if is_own_code(arch) else None
    if network is not None and header[3] and network.sha256 != header[3]:
        found = "is not the file that the run was made with"
        mend = "put that back, or give the experiment's own file: another network is another run"
        raise LtrayError(str(folder.network), found, mend)
    check_criterion_lies_outside(folder, experiment.prune.criterion, header[4])
    own = _Own(network, check_criterion(experiment.prune.criterion, header[4]))
    run = _run(experiment, own, _facts(experiment, header[2]), folder.path.parent)
    if run.folder.path.name != header[1] or run.folder != folder:
        found = f"says what is run {run.folder.path.name}, not {folder.path.name}"
        mend = "undo the change of seed, data, model or train, or give the experiment's own file"
        raise LtrayError(str(folder.experiment), found, mend)
    return run


def _facts(experiment: Experiment, fingerprint: str) -> SourceFacts:
    """What the source said of itself when the experiment was resolved."""
    data = experiment.data
    channels = 1 if data.channels == 1 else 3
    return SourceFacts(fingerprint=fingerprint, image_size=data.image_size, channels=channels)
