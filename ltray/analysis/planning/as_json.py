"""A plan as one JSON object, for scripts. Times are in seconds: low, likely, high."""

from typing import Any

from ltray.analysis.planning.bill import bill, workers_on
from ltray.analysis.planning.checkpointing import dalys_interval, youngs_interval
from ltray.analysis.planning.estimate import Estimate
from ltray.analysis.planning.planned import (
    OnWorkers,
    Plan,
    best_tickets_per_trial,
    is_packed,
    workers_that_pay,
)
from ltray.analysis.planning.scaling_laws import amdahl_limit
from ltray.analysis.planning.spending import SAVED_EVERY_SECONDS, held, interrupted, slowed_down
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
        "epoch": _epoch(plan),
        "work": {
            "dense": _range(plan.work.dense),
            "retrainings": _range(plan.work.retrainings),
            "training": _range(plan.work.training),
            "prepare": _range(plan.work.prepare) if plan.work.prepare else None,
            "starts": _range(plan.work.starts),
        },
        "serial_share": plan.serial,
        "amdahl_limit": amdahl_limit(plan.serial) if plan.serial else None,
        "workers_that_pay": workers_that_pay(plan),
        "workers_here": shown.workers_here,
        "interruptions": _interruptions(shown),
        "machine": _machine(shown),
        "workers": [_on(shown, on) for on in plan.on],
        "storage_bytes": dict(shown.storage) if shown.storage is not None else None,
    }


def _epoch(plan: Plan) -> dict[str, Any]:
    """What a lone worker takes for an epoch; `backend` is null where that was not tried."""
    training = plan.costs.training(1)
    return {
        "dense": _range(training.dense),
        "tickets": [
            {"sparsity": level, "backend": training.backends.get(level), **_range(each)}
            for level, each in sorted(training.tickets.items())
        ],
        "images_once_a_trial": _range(training.shared),
    }


def _interruptions(shown: Shown) -> dict[str, float | None] | None:
    if shown.hours_between is None:
        return None
    found = interrupted(shown.plan, shown.hours_between)
    daly = dalys_interval(found.write, found.between)
    return {
        "between": found.between,
        "state": found.write,
        "restart": found.restart,
        "interval_daly": daly,
        "interval_young": youngs_interval(found.write, found.between),
        "interval": SAVED_EVERY_SECONDS,
        "slowdown_daly": slowed_down(found, daly),
        "slowdown": slowed_down(found),
    }


def _machine(shown: Shown) -> dict[str, Any] | None:
    if shown.instance is None:
        return None
    name, prices = shown.instance
    found = prices.instance(name)
    return {
        "name": name,
        "workers": workers_on(found, shown.plan.experiment.sweep),
        "per_hour": found.per_hour,
        "currency": prices.currency,
        "where": prices.where,
        "as_of": prices.as_of,
    }


def _on(shown: Shown, on: OnWorkers) -> dict[str, Any]:
    plan = shown.plan
    best = best_tickets_per_trial(plan, on.workers) if is_packed(plan) else (None, None)
    return {
        "workers": on.workers,
        "retrainings": _range(on.retrainings),
        "training": _range(on.training),
        "whole": _range(on.whole),
        **_speedups("retrainings", on.workers, plan.work.retrainings, on.retrainings),
        **_speedups("training", on.workers, plan.work.training, on.training),
        **_speedups("whole", on.workers, plan.whole_on_one, on.whole),
        "speedup_amdahl": plan.amdahl(on.workers),
        "speedup_gustafson": plan.gustafson(on),
        "worker_hours": on.worker_hours,
        "gpu_hours": plan.gpu_hours(on),
        "best_tickets_per_trial": best[0],
        "whole_with_best": best[1],
        **_interrupted(shown, on),
        **_price(shown, on),
    }


def _speedups(what: str, workers: int, one: Estimate, took: Estimate) -> dict[str, float | None]:
    speedup = one.likely / took.likely if took.likely else None
    efficiency = None if speedup is None else speedup / workers
    return {f"speedup_{what}": speedup, f"efficiency_{what}": efficiency}


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
