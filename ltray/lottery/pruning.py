"""From a trajectory to the mask files of an experiment."""

from ltray.experiment import Experiment, as_written
from ltray.files import is_there
from ltray.layout import ReplicateFolder
from ltray.lottery.criteria import magnitude
from ltray.lottery.masks import dead_layers, make_mask, save_mask
from ltray.lottery.snapshot import load_weights
from ltray.lottery.tickets import mask_name
from ltray.lottery.trajectory import Trajectory, prunable_tensors


def missing_masks(experiment: Experiment, folder: ReplicateFolder) -> list[float]:
    """The levels whose mask is not there yet."""
    levels = experiment.prune.sparsities
    return [
        level for level in levels if not is_there(folder.mask(mask_name(experiment.prune, level)))
    ]


def make_masks(
    experiment: Experiment, folder: ReplicateFolder, trajectory: Trajectory
) -> dict[str, list[str]]:
    """Make the masks that are missing from the dense run's last weights, each file whole.

    Returns:
        sparsity as written -> names of the tensors of which the new mask keeps nothing.
    """
    prune = experiment.prune
    weights = load_weights(folder.step(trajectory.total_steps))
    names = prunable_tensors(prune, trajectory)
    scores = magnitude({name: weights[name] for name in names})
    dead = {}
    for level in missing_masks(experiment, folder):
        mask = make_mask(scores, prune, level, trajectory.output_layer)
        save_mask(folder.mask(mask_name(prune, level)), mask)
        dead[as_written(level)] = dead_layers(mask)
    return {level: names for level, names in dead.items() if names}
