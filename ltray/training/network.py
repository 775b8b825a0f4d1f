"""One network on its way from a reset point to the end: weights, mask, optimizer, position.

B images, C channels, H W pixels.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from ltray.lottery.masks import Mask
from ltray.lottery.snapshot import Snapshot
from ltray.lottery.trajectory import EpochRow
from ltray.models.classics import BasicBlock, Shortcut
from ltray.randomness import seed_for
from ltray.tensors import Tensors
from ltray.training.recipe import Recipe

DRAW_NOTHING = {
    nn.AdaptiveAvgPool2d,
    nn.AvgPool2d,
    nn.BatchNorm2d,
    nn.Conv2d,
    nn.Flatten,
    nn.Identity,
    nn.Linear,
    nn.MaxPool2d,
    nn.ReLU,
    nn.ReLU6,
    nn.Sequential,
}


class Network:
    """One ticket of a pack in training, or the dense run.

    Starts masked and stays masked: gradients of masked weights are set to zero before every
    optimizer step, so weights, momenta and moments under the mask are zero throughout.

    Args:
        name: the ticket's name, or `dense`.
        model: on its device; its weights are replaced by the snapshot's.
        snapshot: where to start. Without optimizer state the optimizer starts fresh.
        mask: name -> bool tensor; empty for the dense run.
        recipe: learning rates and optimizer.
        data_seed: dropout's randomness comes from it, as order and augmentation do.

    Attributes:
        forward: what computes the model in training steps; the model, if nothing else is set.
    """

    forward: Callable[[torch.Tensor], torch.Tensor]

    def __init__(  # noqa: PLR0913, PLR0917 (each of these differs from ticket to ticket)
        self,
        name: str,
        model: nn.Module,
        snapshot: Snapshot,
        mask: Mask,
        recipe: Recipe,
        data_seed: int,
    ) -> None:
        self.name = name
        self.recipe = recipe
        self.data_seed = data_seed
        self.model = self.forward = model
        self.model.load_state_dict(snapshot.model)
        self.parameters = dict(model.named_parameters())
        pruned = [key for key, part in mask.items() if not bool(part.all())]
        self.factors = {key: _factor(mask[key], self.parameters[key]) for key in pruned}
        with torch.no_grad():
            for key, factor in self.factors.items():
                self.parameters[key].mul_(factor)
        self.optimizer = recipe.optimizer(self.parameters.values())
        self._restore_optimizer(snapshot.optimizer)
        self.step = snapshot.step
        self.device = next(iter(self.parameters.values())).device
        self.loss_sum = snapshot.loss_sum.to(self.device)
        self.loss_steps = snapshot.loss_steps
        self.steps_trained = snapshot.steps_trained
        self.train_seconds = snapshot.train_seconds
        self.epochs: list[EpochRow] = list(snapshot.epochs)
        self.diverged = False
        self.correct: Tensors = {}
        self._drops_out = any(_is_random(module) for module in model.modules())

    def train_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Take the next step of the recipe.

        Args:
            images: [B, C, H, W] float, normalised.
            labels: [B] int64.
        """
        self.prepare_step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(images, labels)
        self._mask_gradients()
        self.optimizer.step()
        self.loss_sum.add_(loss)
        self.count_step()

    def prepare_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the learning rate and the random numbers of the next step."""
        rate = self.recipe.learning_rate(self.step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        if self._drops_out:
            torch.manual_seed(self._dropout_seed())

    def count_step(self) -> None:
        """A step has been taken, and its loss has been added."""
        self.loss_steps += 1
        self.step += 1
        self.steps_trained += 1

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """The network's outputs [B, classes], computed in the recipe's precision."""
        return self._computed(self.model, images)

    def training_logits(self, images: torch.Tensor) -> torch.Tensor:
        """The same by `forward`."""
        return self._computed(self.forward, images)

    def autocast(self) -> torch.autocast:
        """The recipe's precision for what is computed within."""
        bfloat16 = self.recipe.train.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16)

    def mean_loss(self) -> float:
        """The mean training loss since the last evaluation; the sum starts again."""
        mean = float(self.loss_sum) / self.loss_steps if self.loss_steps else math.nan
        self.loss_sum.zero_()
        self.loss_steps = 0
        return mean

    def snapshot(self) -> Snapshot:
        """All that the next step needs; shares memory with the running network."""
        return Snapshot(
            step=self.step,
            model=dict(self.model.state_dict()),
            optimizer=self._optimizer_state(),
            loss_sum=self.loss_sum,
            loss_steps=self.loss_steps,
            steps_trained=self.steps_trained,
            train_seconds=self.train_seconds,
            epochs=tuple(self.epochs),
        )

    def _computed(
        self, forward: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor
    ) -> torch.Tensor:
        with self.autocast():
            return at_least_float32(forward(images))

    def _dropout_seed(self) -> int:
        return seed_for(self.data_seed, "dropout", self.step)

    def _backward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Give each parameter its gradient of the batch's mean loss, which is returned."""
        smoothing = self.recipe.train.label_smoothing
        logits = self.training_logits(images)
        loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _mask_gradients(self) -> None:
        # Masking the gradient and not the weight: else momentum would go on under the mask.
        if self.factors:
            pruned = [self.parameters[key] for key in self.factors]
            torch._foreach_mul_(_gradients(pruned), list(self.factors.values()))

    def _optimizer_state(self) -> dict[str, Tensors]:
        return {
            name: {part: value for part, value in state.items() if torch.is_tensor(value)}
            for name, parameter in self.parameters.items()
            if (state := self.optimizer.state.get(parameter))
        }

    def _restore_optimizer(self, state: dict[str, Tensors]) -> None:
        counts_on_device = bool(self.optimizer.defaults["fused"])
        for name, parts in state.items():
            parameter = self.parameters[name]
            self.optimizer.state[parameter] = {
                part: _laid_out_like(parameter, value, counts_on_device)
                for part, value in parts.items()
            }


def at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    """Losses are not summed in bfloat16."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _gradients(weights: Sequence[nn.Parameter]) -> list[torch.Tensor]:
    gradients = [weight.grad for weight in weights]
    assert all(gradient is not None for gradient in gradients), "a prunable weight is not used"
    return gradients  # type: ignore[return-value]


def _factor(mask: torch.Tensor, weight: nn.Parameter) -> torch.Tensor:
    """The mask as 0.0 and 1.0 in the weight's own memory layout."""
    return torch.empty_like(weight, requires_grad=False).copy_(mask)


def _laid_out_like(
    parameter: nn.Parameter, value: torch.Tensor, counts_on_device: bool
) -> torch.Tensor:
    if value.shape != parameter.shape:  # Adam's step count
        return value.to(parameter.device if counts_on_device else "cpu", copy=True)
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def _is_random(module: nn.Module) -> bool:
    """Whether a module may draw random numbers in training, as anything may that is not known."""
    return type(module) not in DRAW_NOTHING and not isinstance(module, BasicBlock | Shortcut)
