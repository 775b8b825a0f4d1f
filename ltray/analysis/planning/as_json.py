"""A plan as one JSON object, for scripts. Times are in seconds: low, likely, high."""

from typing import Any

from ltray.analysis.planning.bill import bill, workers_on
from ltray.analysis.planning.checkpointing import dalys_interval, youngs_interval
from ltray.analysis.planning.estimate import Estimate
from ltray.analysis.planning.planned import OnWorkers, best_tickets_per_trial, workers_that_pay
from ltray.analysis.planning.spending import held, interrupted
from ltray.analysis.planning.text import Shown


def as_json(shown: Shown) -> dict[str, Any]:
    """All numbers of the text."""
    plan = shown.plan
    return {
        "experiment": plan.experiment.name,
        "told_by": plan.costs.told_by,
        "images": shown.images,
        "tickets": plan.tickets,
        "trials": len(plan.packs),
        "dense_runs": plan.dense_runs,
        "work": {
            "dense": _range(plan.work.dense),
            "retrainings": _range(plan.work.retrainings),
            "training": _range(plan.work.training),
            "prepare": _range(plan.work.prepare) if plan.work.prepare else None,
            "starts": _range(plan.work.starts),
        },
        "serial_share": plan.serial,
        "workers_that_pay": workers_that_pay(plan),
        "workers_here": shown.workers_here,
        "interruptions": _interruptions(shown),
        "workers": [_on(shown, on) for on in plan.on],
        "storage_bytes": dict(shown.storage) if shown.storage is not None else None,
    }


def _interruptions(shown: Shown) -> dict[str, float] | None:
    if shown.hours_between is None:
        return None
    found = interrupted(shown.plan, shown.hours_between)
    return {
        "between": found.between,
        "state": found.write,
        "restart": found.restart,
        "interval_daly": dalys_interval(found.write, found.between),
        "interval_young": youngs_interval(found.write, found.between),
    }


def _on(shown: Shown, on: OnWorkers) -> dict[str, Any]:
    plan = shown.plan
    size, seconds = best_tickets_per_trial(plan, on.workers)
    return {
        "workers": on.workers,
        "retrainings": _range(on.retrainings),
        "training": _range(on.training),
        "whole": _range(on.whole),
        "worker_hours": on.worker_hours,
        "gpu_hours": plan.gpu_hours(on),
        "speedup_retrainings": _ratio(plan.work.retrainings, on.retrainings),
        "speedup_training": _ratio(plan.work.training, on.training),
        "speedup_amdahl": plan.amdahl(on.workers),
        "best_tickets_per_trial": size,
        "whole_with_best": seconds,
        **_interrupted(shown, on),
        **_price(shown, on),
    }


def _interrupted(shown: Shown, on: OnWorkers) -> dict[str, float | None]:
    if shown.hours_between is None:
        return {}
    whole = held(shown.plan, on, shown.hours_between)
    return {"whole_interrupted": whole.likely if whole else None}


def _price(shown: Shown, on: OnWorkers) -> dict[str, Any]:
    if shown.instance is None:
        return {}
    name, prices = shown.instance
    found = prices.instance(name)
    each = workers_on(found, shown.plan.experiment.sweep)
    seconds = held(shown.plan, on, shown.hours_between)
    machines, price = bill(on.workers, seconds, found, each)
    return {
        "machines": machines,
        "price": _range(price) if price else None,
        "currency": prices.currency,
    }


def _range(estimate: Estimate) -> dict[str, float]:
    return {"low": estimate.low, "likely": estimate.likely, "high": estimate.high}


def _ratio(work: Estimate, took: Estimate) -> float | None:
    return work.likely / took.likely if took.likely else None
