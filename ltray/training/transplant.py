"""What tickets of another experiment start with on a target: early weights, a new head, masks."""

from collections.abc import Mapping

import torch

from ltray.data.manifest import read_manifest
from ltray.data.selection import chosen_classes
from ltray.errors import LtrayError
from ltray.experiment import replicate_seeds, step_of
from ltray.files import is_there, sha256_of, write_whole
from ltray.layout import ReplicateFolder
from ltray.lottery.mask_names import masks_of
from ltray.lottery.masks import load_mask, save_mask
from ltray.lottery.snapshot import Snapshot, load_weights, save_snapshot
from ltray.lottery.trajectory import Trajectory, read_trajectory, write_trajectory
from ltray.lottery.transferring import Transferred
from ltray.run import Run
from ltray.tensors import Tensors
from ltray.training.start import untrained


def transplant(
    source: Run, target: Run, onto: ReplicateFolder, what: Transferred, replicate: int
) -> None:
    """Write the trajectory and the masks that a replicate's tickets start with, if they are not.

    Weights are those of the source at its reset points, but for the output layer: that is new,
    as the target's own untrained network of the same seed has it, and no mask prunes it. The
    record is the target's, whose dense run tickets are compared with.

    Raises:
        LtrayError: the network has other shapes on the target.
    """
    if is_there(onto.trajectory):
        return
    of_source, of_target = (_trajectory(run, replicate) for run in (source, target))
    fresh = _fresh(target, replicate)
    head = of_target.output_layer.rpartition(".")[0]
    hashes = {}
    for point in what.tickets.reset.epochs:
        step = step_of(point, of_source.steps_per_epoch)
        weights = load_weights(source.folder.replicate(replicate).step(step))
        path = onto.step(step_of(point, of_target.steps_per_epoch))
        save_snapshot(path, Snapshot(step=0, model=with_new_head(weights, fresh, head, source)))
        hashes[path.name] = sha256_of(path)
    _write_masks(source.folder.replicate(replicate), onto, what, of_target, fresh)
    dense_correct = target.folder.replicate(replicate).dense_correct
    write_whole(onto.dense_correct, dense_correct.read_bytes())
    hashes[dense_correct.name] = of_target.sha256[dense_correct.name]
    write_trajectory(onto, of_target.model_copy(update={"sha256": hashes}))


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
            f"{data.channels}}} in the target's experiment",
        )
    return {name: weights[name] if name in names else fresh[name] for name in fresh}


def _write_masks(
    source: ReplicateFolder,
    onto: ReplicateFolder,
    what: Transferred,
    trajectory: Trajectory,
    fresh: Mapping[str, torch.Tensor],
) -> None:
    head = trajectory.output_layer
    masks = {one.name: load_mask(source.mask(one.name)) for one in masks_of(what.tickets)}
    every = next(iter(masks.values()))
    (whole,) = masks_of(what.dense)
    masks[whole.name] = {name: torch.ones_like(part) for name, part in every.items()}
    for name, mask in masks.items():
        if head in mask:
            mask[head] = torch.ones(fresh[head].shape, dtype=torch.bool)
        save_mask(onto.mask(name), mask)


def _fresh(target: Run, replicate: int) -> Tensors:
    """The target's untrained network of a replicate."""
    classes = chosen_classes(target.experiment.data, len(read_manifest(target.data).class_names))
    seed, _ = replicate_seeds(target.experiment, replicate)
    return dict(untrained(target, len(classes), seed, torch.device("cpu")).state_dict())


def _trajectory(run: Run, replicate: int) -> Trajectory:
    found = read_trajectory(run.folder.replicate(replicate))
    assert found is not None, "the driver has looked"
    return found
