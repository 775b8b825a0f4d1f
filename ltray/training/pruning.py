"""From a trajectory to the mask files of an experiment."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from ltray.data.batches import Batches
from ltray.experiment import decimal, replicate_seeds, step_of
from ltray.files import is_there
from ltray.lottery import criteria
from ltray.lottery.mask_names import MaskOf, masks_of, scored
from ltray.lottery.masks import Mask, load_mask, make_mask, save_mask
from ltray.lottery.own_criteria import own_scores
from ltray.lottery.snapshot import load_weights
from ltray.lottery.tickets import Ticket
from ltray.lottery.trajectory import prunable_tensors, read_trajectory
from ltray.randomness import seed_for
from ltray.run import Run
from ltray.tensors import Tensors, read_tensors
from ltray.training.place import this_place
from ltray.training.start import open_batches, untrained

SCORED_PER_CLASS = 10  # images, about, that gradients are taken of
# Of them in one pass: of ResNet-50 at 224 pixels an image takes 0.1 GiB, and 0.25 for grasp.
AT_ONCE = 64
AT_ONCE_BY_GRASP = 16


def make_masks(run: Run, replicate: int) -> None:
    """Make the masks of a whole trajectory that are missing, each file whole, on the CPU.

    Raises:
        LtrayError: scores are not finite, or prune.keep_dense does not fit the network.
    """
    pruning = _Pruning(run, replicate)
    for one in masks_of(run.experiment):
        path = pruning.folder.mask(one.name)
        if not is_there(path):
            save_mask(path, pruning.mask(one))


def make_next_mask(run: Run, ticket: Ticket, before: Ticket | None) -> None:
    """Make a ticket's mask, if it is not there, from the trained ticket of the level before.

    The largest of the weights that are left are kept: the mask is a subset of the one before.

    Args:
        before: None at the first level, whose mask is made from the dense run's last weights.

    Source: Frankle & Carbin 2019, section 2 (arXiv 1803.03635), iterative pruning with resetting.
    """
    folder = run.folder.replicate(ticket.replicate)
    if is_there(folder.mask(ticket.mask)):
        return
    trajectory = read_trajectory(folder)
    assert trajectory is not None, "chains begin when the trajectory is whole"
    names = prunable_tensors(run.experiment.prune, trajectory)
    if before is None:
        weights = load_weights(folder.step(trajectory.total_steps))
        scores = {name: weights[name].abs() for name in names}
    else:
        weights, _ = read_tensors(folder.ticket(before.name).weights)
        left = load_mask(folder.mask(before.mask))
        scores = {name: weights[name].abs().where(left[name], -1.0) for name in names}
    density = 1 - decimal(ticket.sparsity)
    mask = make_mask(scores, run.experiment.prune, density, trajectory.output_layer)
    save_mask(folder.mask(ticket.mask), mask)


class _Pruning:
    def __init__(self, run: Run, replicate: int) -> None:
        self.run = run
        self.prune = run.experiment.prune
        self.folder = run.folder.replicate(replicate)
        trajectory = read_trajectory(self.folder)
        assert trajectory is not None, "masks are made when the trajectory is whole"
        self.trajectory = trajectory
        self.names = sorted(prunable_tensors(self.prune, trajectory), key=str.encode)
        self.seed, self.data_seed = replicate_seeds(run.experiment, replicate)
        self.place = this_place()
        self.scores: dict[float | None, Tensors] = {}

    def mask(self, one: MaskOf) -> Mask:
        density, output_layer = 1 - decimal(one.sparsity), self.trajectory.output_layer
        if self.prune.criterion == "synflow":
            network, image = self._network(one.reset_epoch), self._image()
            return criteria.synflow_mask(
                network, self.names, image, self.prune, density, output_layer
            )
        if one.reset_epoch not in self.scores:
            self.scores[one.reset_epoch] = self._scores(one.reset_epoch)
        return make_mask(self.scores[one.reset_epoch], self.prune, density, output_layer)

    def _scores(self, reset_epoch: float | None) -> Tensors:
        match self.prune.criterion:
            case "magnitude":
                return criteria.magnitude(self._weights(reset_epoch))
            case "random":
                return criteria.random(self._weights(reset_epoch), self.seed)
            case "snip":
                network, images = self._network(reset_epoch), self._scored_images(AT_ONCE)
                return criteria.snip(network, self.names, images, self.seed)
            case "grasp":
                network, images = self._network(reset_epoch), self._scored_images(AT_ONCE_BY_GRASP)
                return criteria.grasp(network, self.names, images, self.seed)
        assert self.run.criterion is not None, "a criterion without a name is a person's own"
        seed = seed_for(self.seed, "own criterion")
        network, images = self._network(reset_epoch), self._scored_images(AT_ONCE)
        return own_scores(self.run.criterion, network, self.names, images, seed)

    def _weights(self, reset_epoch: float | None) -> Tensors:
        state = load_weights(self._step_file(reset_epoch))
        return {name: state[name] for name in self.names}

    def _network(self, reset_epoch: float | None) -> nn.Module:
        """In training mode, with the weights that are scored."""
        network = untrained(self.run, self._batches.classes, self.seed, self.place.device)
        network.load_state_dict(load_weights(self._step_file(reset_epoch)))
        return network

    def _image(self) -> torch.Size:
        data = self.run.experiment.data
        assert isinstance(data.channels, int), "resolve() fills channels"
        assert data.crop_size is not None, "resolve() fills crop_size"
        return torch.Size((data.channels, data.crop_size, data.crop_size))

    def _step_file(self, reset_epoch: float | None) -> Path:
        """Of the weights that are scored; the first step is always saved."""
        if reset_epoch is not None:
            return self.folder.step(step_of(reset_epoch, self.trajectory.steps_per_epoch))
        at_first = scored(self.prune) == "init"
        return self.folder.step(0 if at_first else self.trajectory.total_steps)

    @cached_property
    def _batches(self) -> Batches:
        return open_batches(self.run, self.place, self.data_seed)

    def _scored_images(self, at_once: int) -> "_FirstImages":
        batch_size = self.run.experiment.train.batch_size
        wanted = math.ceil(SCORED_PER_CLASS * self._batches.classes / batch_size)
        return _FirstImages(self._batches, min(wanted, self._batches.steps_per_epoch), at_once)


@dataclass(frozen=True)
class _FirstImages:
    """The first batches of training, some images of each class, read as they are asked for.

    Attributes:
        at_once: the most images of one part.
    """

    batches: Batches
    stop: int
    at_once: int

    def __iter__(self) -> Iterator[criteria.Batch]:
        for images, labels in self.batches.epoch(0, 0, self.stop):
            # As equal as can be: means are added up, and BatchNorm needs more than one image.
            parts = math.ceil(len(images) / self.at_once)
            yield from zip(
                torch.tensor_split(images, parts), torch.tensor_split(labels, parts), strict=True
            )
