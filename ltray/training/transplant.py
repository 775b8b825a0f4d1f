"""What tickets of another experiment start with on a target: early weights, a new head, masks."""

from collections.abc import Mapping

import torch

from ltray.data.manifest import read_manifest
from ltray.data.selection import chosen_classes
from ltray.errors import LtrayError
from ltray.experiment import replicate_seeds, step_of
from ltray.files import is_there, sha256_of, write_whole
from ltray.layout import ReplicateFolder, RunFolder
from ltray.lottery.mask_names import masks_of
from ltray.lottery.masks import Mask, load_mask, save_mask
from ltray.lottery.snapshot import Snapshot, load_weights, save_snapshot
from ltray.lottery.trajectory import Trajectory, read_trajectory, write_trajectory
from ltray.lottery.transferring import Transferred
from ltray.models.networks import build
from ltray.run import Run
from ltray.tensors import Tensors
from ltray.training.start import untrained


def check_fits(source: Run, target: Run) -> None:
    """Refuse a target on which the source's network has other shapes, but for its output layer.

    How many classes the target has may not be known before its shards are there: then its network
    is made for as many as the source has.

    Raises:
        LtrayError: it does not fit.
    """
    record = _trajectory(source, 0)
    step = step_of(min(source.experiment.reset.epochs), record.steps_per_epoch)
    weights = load_weights(source.folder.replicate(0).step(step))
    data, own = target.experiment.data, target.network
    assert isinstance(data.channels, int), "resolve() fills channels"
    assert data.crop_size is not None, "resolve() fills crop_size"
    arch = target.experiment.model.arch if own is None else f"{own.path}:{own.function}"
    classes = len(weights[record.output_layer])
    if is_there(target.data.manifest):
        classes = len(_classes(target))
    network = build(arch, classes, data.channels, data.crop_size, seed=0)
    with_new_head(weights, network.state_dict(), record.output_layer.rpartition(".")[0], source)


def check_is_the_source_there(source: Run, inside: RunFolder, what: Transferred) -> None:
    """Refuse a folder of tickets that came from another run of the source's name.

    Raises:
        LtrayError: they have other weights or masks.
    """
    for replicate in range(what.tickets.replicates):
        onto, there = inside.replicate(replicate), source.folder.replicate(replicate)
        before = read_trajectory(onto)
        if before is None:
            continue
        points = sorted(what.tickets.reset.epochs)
        steps = [step_of(point, before.steps_per_epoch) for point in points]
        steps = [step for step in steps if before.has_step(onto, step)]
        masks = [one.name for one in masks_of(what.tickets) if is_there(onto.mask(one.name))]
        both = [
            *((load_weights(onto.step(one)), load_weights(there.step(one))) for one in steps[-1:]),
            *((load_mask(onto.mask(one)), load_mask(there.mask(one))) for one in masks[-1:]),
        ]
        head = before.output_layer.rpartition(".")[0]
        for ours, theirs in both:
            names = {name for name in ours if not name.startswith(f"{head}.")}
            if not all(torch.equal(ours[name], theirs[name]) for name in names):
                found = f"{inside.path} has tickets of another run that has this name"
                raise LtrayError("SOURCE", found, "name that one, or give another --root")


def transplant(
    source: Run, target: Run, onto: ReplicateFolder, what: Transferred, replicate: int
) -> None:
    """Write what a replicate's tickets start with: weights, masks and the record of them.

    Weights are those of the source at its reset points, but for the output layer: that is new,
    as the target's own untrained network of the same seed has it, and no mask prunes it. The
    record is the target's, whose dense run tickets are compared with; its steps are the source's.
    What is there stays, so that a grid that has grown is given what it lacks.

    Raises:
        LtrayError: the network has other shapes on the target.
    """
    of_source, of_target = (_trajectory(run, replicate) for run in (source, target))
    there = source.folder.replicate(replicate)
    before = read_trajectory(onto)
    points = what.tickets.reset.epochs
    steps = [step_of(point, of_source.steps_per_epoch) for point in points]
    steps = [step for step in steps if before is None or not before.has_step(onto, step)]
    masks = [one.name for one in masks_of(what.tickets) if not is_there(onto.mask(one.name))]
    if before is not None and not steps and not masks:
        return
    fresh = _fresh(target, replicate)
    head = of_target.output_layer.rpartition(".")[0]
    hashes = dict(before.sha256) if before is not None else {}
    for step in steps:
        model = with_new_head(load_weights(there.step(step)), fresh, head, source)
        save_snapshot(onto.step(step), Snapshot(step=0, model=model))
        hashes[onto.step(step).name] = sha256_of(onto.step(step))
    for name in masks:
        save_mask(onto.mask(name), _with_whole_head(load_mask(there.mask(name)), of_target, fresh))
    (whole,) = masks_of(what.dense)
    if not is_there(onto.mask(whole.name)):
        every = load_mask(onto.mask(masks_of(what.tickets)[0].name))
        save_mask(
            onto.mask(whole.name), {name: torch.ones_like(one) for name, one in every.items()}
        )
    dense_correct = target.folder.replicate(replicate).dense_correct
    write_whole(onto.dense_correct, dense_correct.read_bytes())
    hashes[dense_correct.name] = of_target.sha256[dense_correct.name]
    changes = {"sha256": hashes, "steps_per_epoch": of_source.steps_per_epoch}
    write_trajectory(onto, of_target.model_copy(update=changes))


def with_new_head(
    weights: Mapping[str, torch.Tensor], fresh: Mapping[str, torch.Tensor], head: str, source: Run
) -> Tensors:
    """A network's state with the output layer of another.

    Args:
        head: the output layer's name.
        source: whose weights they are.

    Raises:
        LtrayError: another tensor has another shape, or there is another set of them.
    """
    names = {name for name in fresh if not name.startswith(f"{head}.")}
    other = names ^ {name for name in weights if not name.startswith(f"{head}.")}
    other |= {name for name in names - other if weights[name].shape != fresh[name].shape}
    if other:
        name = min(other)
        both = (weights, fresh)
        shapes = [list(state[name].shape) if name in state else "absent" for state in both]
        data = source.experiment.data
        raise LtrayError(
            "--to",
            f"the network of {source.folder.path.name} does not fit: '{name}' is {shapes[0]} there "
            f"and {shapes[1]} on the target",
            f"take the same network, and write data: {{image_size: {data.crop_size}, channels: "
            f"{data.channels}}} in the target's experiment; what depends on the classes must be in "
            f"its output layer, '{head}'",
        )
    return {name: weights[name] if name in names else fresh[name] for name in fresh}


def _with_whole_head(mask: Mask, trajectory: Trajectory, fresh: Mapping[str, torch.Tensor]) -> Mask:
    head = trajectory.output_layer
    if head not in mask:
        return mask
    return {**mask, head: torch.ones(fresh[head].shape, dtype=torch.bool)}


def _fresh(target: Run, replicate: int) -> Tensors:
    """The target's untrained network of a replicate."""
    seed, _ = replicate_seeds(target.experiment, replicate)
    classes = len(_classes(target))
    return dict(untrained(target, classes, seed, torch.device("cpu")).state_dict())


def _classes(target: Run) -> list[int]:
    return chosen_classes(target.experiment.data, len(read_manifest(target.data).class_names))


def _trajectory(run: Run, replicate: int) -> Trajectory:
    found = read_trajectory(run.folder.replicate(replicate))
    assert found is not None, "the driver has looked"
    return found
