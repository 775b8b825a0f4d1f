"""The job that `plan` starts: from an experiment to what it will cost."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ltray.analysis.planning.costs import Costs, Starting, as_given, starting
from ltray.analysis.planning.estimate import NOTHING, Estimate
from ltray.analysis.planning.planned import planned
from ltray.analysis.planning.probed import HIGHER, LOWER, alone_and_beside, spread, training_of
from ltray.analysis.planning.storage import stored_bytes
from ltray.analysis.planning.text import Shown
from ltray.analysis.planning.work import packs_left
from ltray.analysis.results import Rows, collect
from ltray.cluster.dense_runs import whole_trajectories
from ltray.cluster.probing import Tried, try_out
from ltray.cluster.session import Connection
from ltray.contradictions import too_few_images
from ltray.data.expected import ExpectedImages, expected_images, filled_in
from ltray.errors import ImagesUnknown, InvalidExperiment, LtrayError
from ltray.experiment import Experiment
from ltray.files import is_there
from ltray.lottery.mask_names import masks_of
from ltray.lottery.ready import RowsSoFar
from ltray.models.names import check_arch
from ltray.models.sizes import network_sizes
from ltray.own_code import OwnCode
from ltray.run import Run
from ltray.say import Say

# Where nothing was tried: CPU seconds of preparing an image of ILSVRC's size, and one that is an
# array already.
ENCODED_IMAGE_SECONDS = Estimate(0.001, 0.0016, 0.005)
ARRAY_SECONDS = Estimate(2e-5, 4e-5, 2e-4)


@dataclass(frozen=True)
class Asked:
    """What a person says that the experiment does not.

    Attributes:
        seconds_per_epoch: of every network on every worker; None = try it out.
        workers: how many to plan for; empty = powers of two, one a trial, and what is there.
        images: train and test images of the source, where nobody knows.
        classes: likewise.
    """

    seconds_per_epoch: float | None = None
    workers: tuple[int, ...] = ()
    images: tuple[int, int] | None = None
    classes: int | None = None


def make_plan(
    experiment: Experiment, run: Run | None, asked: Asked, connection: Connection, say: Say
) -> Shown:
    """Plan what is left of an experiment.

    Args:
        experiment: as its run has it, where there is one.
        run: None where the source is not here.

    Raises:
        LtrayError: what is not known and has to be, to try it out.
        StageFailed: a worker was lost.
    """
    network = run.network if run else check_arch(experiment.model.arch)
    experiment = _with_data_seed(_with_network_at_hand(experiment, network))
    images: ExpectedImages | None = None
    storage = None
    try:
        experiment, images = _with_images(experiment, run, asked)
        about_images = _in_words(images)
    except ImagesUnknown as error:
        if asked.seconds_per_epoch is None:
            raise
        where, found, mend = error.args
        about_images = f"{where}: {found}; {mend}"
    else:
        _check_counts(experiment, images)
        storage = _storage(experiment, images)  # a network that cannot be built is told here
    if asked.seconds_per_epoch is None:
        assert images is not None, "else it was raised above"
        tried = try_out(experiment, images, network, connection, say)
        costs, here = _tried_costs(tried, experiment, images), tried.workers
    else:
        prepare = None if images is None else _usual_prepare(images)
        costs, here = as_given(asked.seconds_per_epoch, prepare), None
    done, dense_done = _done(run)
    return Shown(
        plan=planned(experiment, costs, _workers(experiment, asked, here), done, dense_done),
        images=about_images,
        storage=storage,
        workers_here=here,
    )


def _with_data_seed(experiment: Experiment) -> Experiment:
    train = experiment.train
    seed = experiment.seed if train.data_seed is None else train.data_seed
    return experiment.model_copy(update={"train": train.model_copy(update={"data_seed": seed})})


def _with_network_at_hand(experiment: Experiment, network: OwnCode | None) -> Experiment:
    """With a person's own network where its file lies, which the run may not have yet."""
    if network is None:
        return experiment
    model = experiment.model.model_copy(update={"arch": f"{network.path}:{network.function}"})
    return experiment.model_copy(update={"model": model})


def _with_images(
    experiment: Experiment, run: Run | None, asked: Asked
) -> tuple[Experiment, ExpectedImages]:
    data = experiment.data if run else filled_in(experiment.data)
    images = expected_images(data, run.data if run else None, asked.images, asked.classes)
    return experiment.model_copy(update={"data": data}), images


def _check_counts(experiment: Experiment, images: ExpectedImages) -> None:
    """Refuse what the sweep would refuse when it has prepared the images."""
    problems = too_few_images(experiment, images.train, images.validation, images.test)
    if problems:
        raise InvalidExperiment([LtrayError(*problem) for problem in problems])


def _storage(experiment: Experiment, images: ExpectedImages) -> Mapping[str, int]:
    return stored_bytes(experiment, images, network_sizes(experiment, images.classes))


def _in_words(images: ExpectedImages) -> str:
    return (
        f"{images.train:,} to train on, {images.validation:,} for validation, {images.test:,} to"
        f" test, {images.classes:,} classes ({images.told_by})"
    )


def _done(run: Run | None) -> tuple[RowsSoFar, int]:
    """The rows of tickets that have ended, and how many dense runs are whole."""
    if run is None or not is_there(run.folder.experiment):
        return {}, 0
    rows: Rows = collect(run.folder)
    ended = {key: row for key, row in rows.tickets.items() if row["status"] != "failed"}
    return ended, len(whole_trajectories(run))


def _usual_prepare(images: ExpectedImages) -> Estimate:
    each = ENCODED_IMAGE_SECONDS if images.encoded else ARRAY_SECONDS
    return NOTHING if images.prepared else each * images.stored


def _tried_costs(tried: Tried, experiment: Experiment, images: ExpectedImages) -> Costs:
    probes = tried.beside
    if len(probes) == 1 or not tried.alone:
        alone = beside = training_of(tried.alone or probes, experiment, images)
    else:
        alone, beside = alone_and_beside(tried.alone, probes, experiment, images)
    prepare = spread([images.stored * one.image_seconds for one in probes])
    masks = spread([len(masks_of(experiment)) * one.mask_seconds for one in probes])
    return Costs(
        alone=alone,
        beside=beside,
        apart=tried.apart if len(probes) > 1 else tried.workers,
        starting=_starting(tried),
        prepare=NOTHING if images.prepared else prepare,
        masks=masks,
        state_seconds=max(one.state_seconds for one in probes),
        told_by=_told_by(tried, experiment),
    )


def _starting(tried: Tried) -> Starting:
    ray = Estimate(0.7 * tried.ray_seconds, tried.ray_seconds, 1.5 * tried.ray_seconds)
    least, most = min(tried.process_seconds), max(tried.process_seconds)
    # The first to be there: what held up another is as likely to be gone when trials start.
    return starting(Estimate(LOWER * least, least, HIGHER * most), ray)


def _told_by(tried: Tried, experiment: Experiment) -> str:
    probe, count = tried.beside[0], len(tried.beside)
    device = "a CPU" if probe.device == "cpu" else probe.device
    said = f"tried on {device} with made-up images, {count} at a time"
    if tried.alone and count > 1:
        said += " and one alone"
    if probe.batch_size < experiment.train.batch_size:
        said += (
            f"; with batches of {probe.batch_size} in place of {experiment.train.batch_size}, since"
            " one takes long here: less certain"
        )
    sweep = experiment.sweep
    if any(isinstance(gpus, int) and gpus > 1 for gpus in (sweep.gpus_per_trial, sweep.dense_gpus)):
        said += "; where several GPUs train together, as if one did it all"
    return said


def _workers(experiment: Experiment, asked: Asked, here: int | None) -> Collection[int]:
    if asked.workers:
        return asked.workers
    packs = len(packs_left(experiment, done=()))
    powers = [2**power for power in range(20) if 2**power < packs]
    return {*powers, packs, *([here] if here else [])}
