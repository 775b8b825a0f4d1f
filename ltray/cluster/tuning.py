"""One Tuner run over trials that are ready; what they report reaches `on_report`."""

import json
import logging
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ray import tune
from ray.tune.logger import JsonLoggerCallback, TBXLoggerCallback

from ltray.cluster.slots import Slots
from ltray.cluster.tracking import MakeTracker
from ltray.errors import LtrayError, StageFailed
from ltray.files import is_local

NODES_LOST_AT_MOST = 10  # without getting any further; then each counts as a failure
REPORTS_PER_SECOND = 100.0  # at most; each takes the driver a millisecond, and its trial waits

OnReport = Callable[[Mapping[str, Any]], None]


def run_trials(  # noqa: PLR0913 (each is a thing of its own, and has its name in every call)
    trainable: Callable[..., None],
    key: str,
    values: Sequence[Any],
    *,
    slots: Slots,
    storage: Path,
    max_failures: int,
    on_report: OnReport,
    at_once: int | None = None,
    make_tracker: MakeTracker | None = None,
) -> dict[Any, str]:
    """Run one trial per value and wait for all of them.

    A trial starts again until it has failed `max_failures` times without getting any further in
    between: one that a node is taken from every other hour comes to its end. Nor does the loss of
    its node count, up to a bound. It finds by itself what it had done. Tune's folder is written
    for people and TensorBoard, and never read back.

    Args:
        trainable: takes a config with `key`, `cpus`, `gpus`, and `report_every`: seconds between
            two reports, so that the driver is not kept busy by many trials.
        key: what the values are called in the config.
        slots: what each runs on; learns of broken GPUs, on which trials did nothing.
        storage: a folder of this launch; Tune's own files go below it.
        on_report: called in the driver with each report, in the order of arrival.
        at_once: how many trials may run at a time; as many as there is room for when None.
        make_tracker: gives a callback that hands reports on to a tracker of another maker.

    Returns:
        value -> error of the trials that failed for good.
    """
    reporting = _Reporting(on_report, slots, key)
    errors: dict[Any, str] = {}
    left = list(values)
    # The dashboard calls actors by it; a partial function has none.
    trainable.__name__ = getattr(trainable, "func", trainable).__name__
    # Tune gives up a trial whose worker dies while it is handed over from the trial before, however
    # often it may fail: such trials are run again, where they may fail more than once.
    for number in range(max(1, max_failures)):
        name = f"{key}s-again-{number}" if number else f"{key}s"
        tuner = tune.Tuner(
            tune.with_resources(trainable, dict(slots.resources)),
            param_space={
                key: tune.grid_search(left),
                "cpus": slots.resources["cpu"],
                "gpus": slots.resources["gpu"],
                "report_every": max(1.0, min(len(left), slots.room) / REPORTS_PER_SECOND),
            },
            tune_config=_tune_config(key, at_once),
            run_config=_run_config(name, storage, max_failures, reporting, make_tracker),
        )
        reporting.begin(len(left))
        named = _errors(tuner, reporting)
        found = {value: named[str(value)] for value in left if str(value) in named}
        errors = {value: error for value, error in errors.items() if value not in left} | found
        left = [value for value in found if reporting.failures[value] < max_failures]
        if not left:
            break
    return errors


def stored_in(folder: Path) -> dict[str, Any]:
    """What Tune and Ray Train are told of a folder for their own files.

    One in a store is reached as all else in the run is, with the same library and credentials.
    """
    if is_local(folder):
        return {"storage_path": str(folder)}
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    store = cast("Any", folder)
    return {
        "storage_path": store.path,
        "storage_filesystem": PyFileSystem(FSSpecHandler(store.fs)),
    }


def _run_config(
    name: str,
    storage: Path,
    max_failures: int,
    reporting: "_Reporting",
    make_tracker: MakeTracker | None,
) -> tune.RunConfig:
    tracker = make_tracker() if make_tracker else None
    return tune.RunConfig(
        name=name,
        **stored_in(storage),
        failure_config=tune.FailureConfig(max_failures=max(0, max_failures - 1)),
        stop=reporting.lets_go,
        callbacks=[
            reporting,
            JsonLoggerCallback(),
            TBXLoggerCallback(),
            *([_Tracking(tracker)] if tracker else []),
        ],
        # In a notebook Tune would take another one, which clears what a cell has printed.
        progress_reporter=tune.CLIReporter(),
        verbose=0,
    )


def _tune_config(key: str, at_once: int | None) -> tune.TuneConfig:
    return tune.TuneConfig(
        reuse_actors=True,
        max_concurrent_trials=at_once,
        trial_name_creator=lambda trial: str(trial.config[key]),
        trial_dirname_creator=lambda trial: str(trial.config[key]),
    )


def _errors(tuner: tune.Tuner, reporting: "_Reporting") -> dict[str, str]:
    """Run its trials; name -> error of those that Tune gave up."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    # It prints where in Ray a failure was noticed; our own line says what failed.
    logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)
    try:
        results = tuner.fit()
    except Exception:
        if reporting.error is not None:  # Tune hides what a callback raises in text of its own
            raise reporting.error from None
        raise
    # By the trial's folder: the config in its last result may be that of the trial before.
    return {Path(one.path).name: _reason(one.error) for one in results if one.error}


class _Unwritten(tune.Callback):  # type: ignore[misc]
    """What Tune, which writes its callbacks to a file that nobody reads, writes nothing of."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Reporting(_Unwritten):
    """What trials report and how often they failed, value by value."""

    def __init__(self, on_report: OnReport, slots: Slots, key: str) -> None:
        self._on_report = on_report
        self._slots = slots
        slots.displaced.clear()
        self._holding: set[str] = set()
        self._trials = self._others = self._waiting = 0
        self._key = key
        self._furthest: defaultdict[Any, dict[Any, int]] = defaultdict(dict)
        self._nodes_lost: Counter[Any] = Counter()
        self.failures: Counter[Any] = Counter()
        self.error: Exception | None = None

    def begin(self, trials: int) -> None:
        """Count for so many; Tune makes them only as there is room for them."""
        self._trials = trials

    def on_step_begin(self, *, trials: Sequence[Any], **_rest: Any) -> None:
        """Called by Tune before each thing that it does, a hundred times a second at most."""
        running = {trial.trial_id for trial in trials if trial.status == "RUNNING"}
        self._others = len(running - self._holding)
        self._waiting = self._trials - sum(trial.status != "PENDING" for trial in trials)
        self._slots.look(len(running), self._waiting)

    def lets_go(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Asked by Tune with each report whether the trial ends now.

        One on a broken GPU does when no other would be given that GPU, or none gets on at all.
        """
        if "broken" not in result:
            self._holding.discard(trial_id)
            return False
        self._holding.add(trial_id)
        return not self._waiting or not self._others

    def on_trial_recover(self, *, trial: Any, **_rest: Any) -> None:
        """Called by Tune when a trial has failed and is started again."""
        self._slots.say(f"{trial.config[self._key]}: {_last_error(trial)}; it is started again")
        self._excuse(trial)

    def on_trial_error(self, *, trial: Any, **_rest: Any) -> None:
        """Called by Tune when it gives a trial up."""
        self._excuse(trial)
        self.failures[trial.config[self._key]] += trial.num_failures

    def _excuse(self, trial: Any) -> None:
        """Take a failure back that was its node's: most are not the trial's fault, but some are."""
        value = trial.config[self._key]
        if self._nodes_lost[value] < NODES_LOST_AT_MOST and _node_was_lost(trial):
            self._nodes_lost[value] += 1
            trial.run_metadata.num_failures -= 1

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_rest: Any) -> None:
        """Called by Tune with each report; all of its arguments come by name."""
        if "rows" in result:
            rows = {name: json.loads(result[name]) for name in ("rows", "records")}
            if self._is_further(trial.config[self._key], rows["rows"]):
                trial.run_metadata.num_failures = 0
                self._nodes_lost[trial.config[self._key]] = 0
            if "leaves" in result:  # it fails next, and not by its own fault
                trial.run_metadata.num_failures -= 1
            try:
                if "leaves" in result:
                    taken = "a node is taken away, what it trains goes on elsewhere"
                    self._slots.say(f"{taken}: {result['leaves']}")
                if "waits" in result:
                    self._slots.say_group_waits()
                if "broken" in result:
                    self._slots.displaced.add(trial.config[self._key])
                    self._slots.broken.see(result)
                if "stage_failed" in result:
                    kind, args = json.loads(result["stage_failed"])
                    raise (StageFailed if kind == StageFailed.__name__ else LtrayError)(*args)
                self._on_report({**result, **rows})
            except Exception as error:
                self.error = error
                raise

    def _is_further(self, value: Any, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a trial has come to a step at which it had not been in any of its lives."""
        furthest = self._furthest[value]
        before = sum(furthest.values())
        for row in rows:
            ticket = row["ticket"]
            furthest[ticket] = max(row["step"], furthest.get(ticket, 0))
        return sum(furthest.values()) > before


class _Tracking(_Unwritten):
    """Hands what happens on to a tracker, whose troubles are no reason to stop training."""

    def __init__(self, tracker: tune.Callback) -> None:
        self._tracker = tracker
        self._warned = False

    def on_trial_start(self, **what: Any) -> None:
        self._hand_on(self._tracker.on_trial_start, what)

    def on_trial_result(self, **what: Any) -> None:
        self._hand_on(self._tracker.on_trial_result, what)

    def on_trial_complete(self, **what: Any) -> None:
        self._hand_on(self._tracker.on_trial_complete, what)

    def on_trial_error(self, **what: Any) -> None:
        self._hand_on(self._tracker.on_trial_error, what)

    def on_experiment_end(self, **what: Any) -> None:
        self._hand_on(self._tracker.on_experiment_end, what)

    def _hand_on(self, call: Callable[..., None], what: Mapping[str, Any]) -> None:
        try:
            call(**what)
        except Exception as error:  # noqa: BLE001 (whatever it is, training can go on)
            if not self._warned:
                self._warned = True
                warnings.warn(f"--track lacks some reports: {error}", RuntimeWarning, stacklevel=2)


def _node_was_lost(trial: Any) -> bool:
    """Whether a trial failed since its node died, or did not answer for long."""
    from ray.exceptions import ActorUnavailableError

    error = trial.get_pickled_error()
    return isinstance(error, ActorUnavailableError) or "its node has died" in str(error)


def _last_error(trial: Any) -> str:
    """What Tune has written of a trial's last failure."""
    path = Path(trial.local_path, trial.run_metadata.error_filename or "none")
    return _reason(RuntimeError(path.read_text() if path.is_file() else "it failed"))


def _reason(error: BaseException) -> str:
    """The last line of a trial's error, which names it, without Ray's guesses at causes."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    last = lines[-1].partition(" Some common causes include")[0].strip() if lines else ""
    return last or type(error).__name__
