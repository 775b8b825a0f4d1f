"""One network that a group of processes trains together: each computes a part of every batch.

B images of this process, C channels, H W pixels.
"""

from typing import Any

import torch
from torch.nn import functional

from ltray.group import Group
from ltray.randomness import seed_for
from ltray.training.batch_norm import synchronise
from ltray.training.network import Network


class SharedNetwork(Network):
    """A network of which every process of a group holds a copy; all copies stay equal.

    A step is that of the whole batch, up to rounding: BatchNorm takes its statistics from all
    processes, and gradients and losses are added up before they are divided by the number of
    images. Dropout draws in each process from a seed of its own.
    """

    def __init__(self, *arguments: Any, group: Group) -> None:
        super().__init__(*arguments)
        self.group = group
        synchronise(self.model, group)

    def _dropout_seed(self) -> int:
        return seed_for(self.data_seed, "dropout", self.step, self.group.rank)

    def _backward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        smoothing = self.recipe.train.label_smoothing
        logits = self.training_logits(images)
        loss = functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        return self._mean_over_the_group(loss.detach(), labels.numel())

    def _mean_over_the_group(self, loss: torch.Tensor, images: int) -> torch.Tensor:
        """Make the gradients of a sum over images those of the mean over all processes' images.

        Args:
            loss: summed over this process's images.
            images: how many these are.

        Returns:
            The mean loss of all images.
        """
        used = [one.grad for one in self.parameters.values() if one.grad is not None]
        totals = torch.stack([loss, torch.full_like(loss, images)]).to(used[0].dtype)
        flat = torch.cat([*(gradient.flatten() for gradient in used), totals])
        self.group.add_up(flat)  # one message a step, since each costs a round trip
        flat /= flat[-1].clone()
        lengths = [gradient.numel() for gradient in used]
        for gradient, part in zip(used, torch.split(flat[:-2], lengths), strict=True):
            gradient.copy_(part.view(gradient.shape))
        return flat[-2]
