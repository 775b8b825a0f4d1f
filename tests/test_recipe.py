from typing import Any

import pytest
import torch

from ltray.experiment import Train, step_of, steps_per_epoch
from ltray.training.recipe import Recipe


def recipe(steps: int = 10, **keys: Any) -> Recipe:
    return Recipe(Train(**{"epochs": 4, "batch_size": 8, "lr": 1.0, **keys}), steps)


def test_steps_drop_the_rate_tenfold_from_the_drop_on() -> None:
    of = recipe(schedule="step", drops=(1.5, 3.0))
    assert [of.learning_rate(step) for step in (0, 14, 15, 29, 30, 39)] == [
        1.0,
        1.0,
        0.1,
        0.1,
        0.01,
        0.01,
    ]


def test_cosine_falls_from_lr_to_nearly_nothing() -> None:
    of = recipe(schedule="cosine")
    assert of.learning_rate(0) == 1.0
    assert of.learning_rate(20) == pytest.approx(0.5)
    assert of.learning_rate(39) == pytest.approx(0.0015, abs=1e-3)


def test_warm_up_rises_in_equal_steps_and_never_starts_at_zero() -> None:
    rates = [recipe(warmup_epochs=0.4).learning_rate(step) for step in range(6)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_evaluations_are_at_epochs_or_every_so_many_steps_and_at_the_end() -> None:
    every = [step for step in range(1, 41) if recipe().evaluates_after(step)]
    assert every == [10, 20, 30, 40]
    some = [step for step in range(1, 41) if recipe(evaluate_every=12).evaluates_after(step)]
    assert some == [12, 24, 36, 40]
    assert recipe(evaluate_every=12).next_pause(10) == 12
    assert recipe(evaluate_every=12).next_pause(12) == 20


def test_reset_steps_are_rounded_in_decimal_with_halves_to_even() -> None:
    assert step_of(0.25, 10) == 2
    assert step_of(0.35, 10) == 4
    assert step_of(1.1, 5) == 6  # 5.5
    assert step_of(0, 10) == 0


def test_the_last_incomplete_batch_is_dropped_unless_it_is_the_only_one() -> None:
    assert steps_per_epoch(119, 60) == 1
    assert steps_per_epoch(120, 60) == 2
    assert steps_per_epoch(5, 60) == 1


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"optimizer": "sgd", "momentum": 0.9, "nesterov": True}, torch.optim.SGD),
        ({"optimizer": "adam"}, torch.optim.Adam),
        ({"optimizer": "adamw", "weight_decay": 0.01}, torch.optim.AdamW),
    ],
)
def test_the_optimizer_is_the_one_asked_for(keys: dict[str, Any], kind: type) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = recipe(**keys).optimizer([weight])
    assert type(optimizer) is kind
    for name in ("momentum", "nesterov", "weight_decay"):
        if name in keys:
            assert optimizer.defaults[name] == keys[name]
