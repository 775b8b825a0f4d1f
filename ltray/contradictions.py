"""Keys that are each right but cannot work together."""

from collections import Counter
from collections.abc import Iterable, Iterator

from ltray.experiment import Experiment, Prune, as_written, decimal, step_of, steps_per_epoch

Problem = tuple[str, str, str]
"""(key, what is wrong, how to mend it)"""


def contradictions(experiment: Experiment) -> list[Problem]:
    """Everything that makes the experiment impossible, as far as the file alone can tell."""
    return [
        *_data(experiment),
        *_train(experiment),
        *_prune(experiment),
        *_reset(experiment),
        *_controls(experiment),
        *_sweep(experiment),
    ]


def too_few_images(
    experiment: Experiment, train_images: int, validation_images: int, test_images: int
) -> list[Problem]:
    """What only the number of images can tell: is there a batch, are reset points distinct?"""
    batch = experiment.train.batch_size
    if validation_images == 0:
        share = experiment.data.validation_fraction
        return [("data.validation_fraction", f"{share} leaves no image to choose by", "raise it")]
    if test_images == 0:
        return [("data.classes", "no test image is of these classes", "add a class that has some")]
    if batch > train_images:
        return [
            (
                "train.batch_size",
                f"{batch} is more than the {train_images} train images that are left",
                f"write at most {train_images}",
            )
        ]
    return list(_reset_points_on_one_step(experiment, train_images))


def margin_warning(experiment: Experiment, validation_images: int) -> str | None:
    """A warning where the margin is worth so few images that it is noise."""
    images = experiment.report.margin * validation_images
    if images >= 3:
        return None
    return (
        f"report.margin: {experiment.report.margin} is worth {images:.1f} of the"
        f" {validation_images} validation images, which is noise; 3 or more would tell something"
    )


def _reset_points_on_one_step(experiment: Experiment, train_images: int) -> Iterator[Problem]:
    steps = steps_per_epoch(train_images, experiment.train.batch_size)
    seen: dict[int, str] = {}
    for epochs in experiment.reset.epochs:
        step, written = step_of(epochs, steps), as_written(epochs)
        if step in seen:
            yield (
                "reset.epochs",
                f"{seen[step]} and {written} are both step {step} ({steps} steps per epoch)",
                "leave one of them out",
            )
        if step >= steps * experiment.train.epochs:
            yield ("reset.epochs", f"{written} is the run's last step", "write an earlier one")
        seen[step] = written


def _data(experiment: Experiment) -> Iterator[Problem]:
    data = experiment.data
    if data.source == "digits" and data.path is not None:
        yield ("data.path", "digits come with a package and have no path", "leave it out")
    if data.source != "digits" and data.path is None:
        yield ("data.path", f"missing; {data.source} needs its files", "write where they lie")
    if data.crop_size and data.image_size and data.crop_size > data.image_size:
        yield (
            "data.crop_size",
            f"{data.crop_size} is larger than the image_size {data.image_size}",
            f"write at most {data.image_size}",
        )
    if isinstance(data.classes, tuple):
        yield from _twice("data.classes", map(str, data.classes))


def _train(experiment: Experiment) -> Iterator[Problem]:
    train = experiment.train
    if train.optimizer != "sgd" and train.momentum:
        yield ("train.momentum", f"{train.optimizer} has none", "leave it out, or write 0")
    if train.nesterov and not train.momentum:
        yield ("train.nesterov", "needs a momentum", "write train.momentum, or false")
    if train.drops and train.schedule != "step":
        yield ("train.drops", f"a {train.schedule} schedule has none", "write schedule: step")
    if train.schedule == "step" and not train.drops:
        yield ("train.schedule", "step, but no drops", "write train.drops, or constant")
    late = [as_written(drop) for drop in train.drops if drop >= train.epochs]
    if late:
        yield (
            "train.drops",
            f"{', '.join(late)} at or past the end, {train.epochs} epochs",
            "write earlier ones",
        )
    if train.warmup_epochs >= train.epochs:
        yield (
            "train.warmup_epochs",
            f"{as_written(train.warmup_epochs)} of {train.epochs} epochs leaves nothing after it",
            f"write less than {train.epochs}",
        )
    yield from _twice("train.drops", map(as_written, train.drops))


def _prune(experiment: Experiment) -> Iterator[Problem]:
    if experiment.prune.search == "matching" and experiment.prune.style == "iterative":
        found = "matching, but iterative pruning comes to a level by all that are denser"
        yield ("prune.search", found, "write grid, or style: one_shot")
    if experiment.prune.search == "matching" and experiment.sweep.tickets_per_trial != "auto":
        found = f"{experiment.sweep.tickets_per_trial}, but a search trains each ticket alone"
        yield ("sweep.tickets_per_trial", found, "leave it out, or write search: grid")
    prune = experiment.prune
    yield from _twice("prune.sparsities", map(as_written, prune.sparsities))
    yield from _twice("prune.keep_dense", prune.keep_dense)
    if prune.output_rate != 1 and prune.scope != "layerwise":
        yield ("prune.output_rate", f"{prune.scope} has none", "write scope: layerwise, or 1")
    if prune.criterion == "random" and prune.scores != "auto":
        yield ("prune.scores", f"{prune.scores}, but random scores no weights", "leave it out")
    if prune.style == "iterative" and prune.criterion != "magnitude":
        found = f"iterative, but {prune.criterion} does not look at trained tickets"
        yield ("prune.style", found, "write criterion: magnitude, or style: one_shot")
    if prune.style == "iterative" and prune.scores not in {"auto", "final"}:
        found = f"{prune.scores}, but iterative pruning goes by the trained tickets' weights"
        yield ("prune.scores", found, "leave it out")
    low = [as_written(sparsity) for sparsity in prune.sparsities if _below_floor(prune, sparsity)]
    if low:
        yield (
            "prune.min_layer_density",
            f"{prune.min_layer_density} is above the density of {', '.join(low)}",
            "lower it, or leave these sparsities out",
        )


def _below_floor(prune: Prune, sparsity: float) -> bool:
    density = 1 - decimal(sparsity)
    if prune.scope == "layerwise":
        density = min(density, density ** decimal(prune.output_rate))
    return density < decimal(prune.min_layer_density)


def _reset(experiment: Experiment) -> Iterator[Problem]:
    method, schedule = experiment.reset.method, experiment.reset.schedule
    if method != "weights" and schedule == "restart":
        found = f"restart, but {method} goes on from the reset point to the recipe's end"
        yield ("reset.schedule", found, "write continue, or reset.method: weights")
    if method == "fine_tune" and experiment.train.schedule == "cosine":
        found = "fine_tune, but the last learning rate of a cosine is next to nothing"
        yield ("reset.method", found, "write learning_rate, or another train.schedule")
    yield from _twice("reset.epochs", map(as_written, experiment.reset.epochs))
    epochs = experiment.train.epochs
    late = [as_written(point) for point in experiment.reset.epochs if point >= epochs]
    if late:
        yield (
            "reset.epochs",
            f"{', '.join(late)} at or past the end, {epochs} epochs",
            f"write points before {epochs}",
        )


def _controls(experiment: Experiment) -> Iterator[Problem]:
    yield from _twice("controls", experiment.controls)
    kept = experiment.prune.style == "iterative" and experiment.reset.method != "weights"
    if kept and "shuffled_mask" in experiment.controls:
        found = (
            "shuffled_mask would fall on weights that iterative pruning has taken out, since"
            f" {experiment.reset.method} keeps the others as they were trained"
        )
        yield ("controls", found, "leave it out, or write reset.method: weights")


def _sweep(experiment: Experiment) -> Iterator[Problem]:
    gpus, batch = experiment.sweep.dense_gpus, experiment.train.batch_size
    if gpus is not None and gpus > batch:
        yield (
            "sweep.dense_gpus",
            f"{gpus} is more than the {batch} images of a batch, which they share",
            f"write at most {batch}, or a larger train.batch_size",
        )


def _twice(key: str, values: Iterable[str]) -> Iterator[Problem]:
    doubled = [value for value, count in Counter(values).items() if count > 1]
    if doubled:
        yield (key, f"{', '.join(doubled)} more than once", "write each once")
