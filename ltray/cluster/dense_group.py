"""A dense run on several GPUs: a Tune trial that lets Ray Train's workers compute.

Tune starts it again when it fails, and rows and errors reach the driver, as for every other trial.
"""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import ray.train
from ray import tune
from ray.util.placement_group import placement_group, remove_placement_group

from ltray.cluster.broken_gpus import GpuBroken, broken_gpus_found
from ltray.cluster.metrics import DENSE, trial_series, unseen
from ltray.cluster.nodes import Demands
from ltray.cluster.slots import AGAIN_AFTER_SECONDS, FIRST_AFTER_SECONDS
from ltray.cluster.trials import (
    Reports,
    Row,
    is_due,
    place_of,
    report_error,
    watch_this_machine,
)
from ltray.errors import LtrayError, MachineLeaves
from ltray.patience import is_storage_error, patiently
from ltray.run import Run

# Ray Train takes reports every two seconds; one that comes before the last was taken waits.
REPORT_EVERY_SECONDS = 5.0
# It is Tune that starts a trial again, waits for room, and says so.
NEVER_AGAIN = ray.train.FailureConfig(
    max_failures=0, max_preemption_failures=0, controller_failure_limit=0
)


def train_in_group(  # noqa: PLR0913, PLR0917 (who, what, and where)
    config: Row, run: Run, wanted: Demands, workers: int, worker: Row, storage: Path
) -> None:
    """Tune's trainable for one replicate's dense run; the trial itself only waits.

    Args:
        wanted: of every process that trains.
        workers: how many processes train, each on one GPU, on one node or several.
        worker: `cpus` and `gpus` of each.
        storage: where Ray Train's files of this launch go.
    """
    replicate = config["replicate"]

    def train() -> None:
        # Not above: the driver imports this module, and would wait for torch.
        from ray.train.torch import TorchConfig, TorchTrainer
        from ray.tune.integration.ray_train import TuneReportCallback

        from ltray.cluster.tuning import stored_in

        _wait_for_room([_resources(worker)] * workers)
        trainer = TorchTrainer(
            partial(_work, run=run, wanted=wanted, replicate=replicate),
            train_loop_config=worker,
            # What travels on the CPU does so by gloo; for GPUs the processes add nccl themselves,
            # since only they know whether torch sees them.
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers, use_gpu=True, resources_per_worker=_resources(worker)
            ),
            run_config=ray.train.RunConfig(
                name=str(replicate),
                **stored_in(storage),
                callbacks=[TuneReportCallback()],
                failure_config=NEVER_AGAIN,
                logging_config=ray.train.LoggingConfig(log_level="ERROR"),  # else: every row
            ),
        )
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise _cause(error) from None

    try:
        patiently(train, run.folder.path)
    except Exception as error:  # noqa: BLE001 (it is handed on)
        # Its processes have let go of a broken GPU, which is held before the next round.
        report_error(error)


def _wait_for_room(processes: list[dict[str, float]]) -> None:
    """Return when all processes can start, and have it said now and then what is missing.

    Ray Train itself would wait in silence.
    """
    wanted = placement_group(processes)
    patience = FIRST_AFTER_SECONDS
    try:
        while not wanted.wait(patience):
            tune.report({"rows": "[]", "records": "[]", "waits": True})
            patience = AGAIN_AFTER_SECONDS
    finally:
        remove_placement_group(wanted)


def _resources(worker: Row) -> dict[str, float]:
    return {"CPU": worker["cpus"], "GPU": worker["gpus"]}


def _work(config: Row, run: Run, wanted: Demands, replicate: int) -> None:
    """What each process does."""
    from ltray.group import Processes
    from ltray.training.dense import train_dense

    place = place_of(config, wanted)
    watch = watch_this_machine()
    place = replace(place, leaves=watch.leaves)
    group = Processes(place.device)
    # Each report waits for all processes, so the first says for all when it is time.
    due = partial(is_due, every_seconds=REPORT_EVERY_SECONDS)
    series = trial_series(run, replicate, DENSE, tickets=1)
    shown = series if group.rank == 0 else nullcontext(unseen)
    with watch, broken_gpus_found(), shown as see:
        reports = Reports(lambda sent: group.first(partial(due, sent)), ray.train.report, see)
        try:
            train_dense(run, replicate, place, lambda row: reports.add([row], []), group)
        except MachineLeaves:
            group.first(lambda: None)  # until the first, who alone writes the state, has done so
            raise
        reports.flush()


def _cause(error: ray.train.TrainingFailedError) -> BaseException:
    """The error that stopped the group.

    One that tells by itself what to do comes first, then the storage's, then the processes by rank:
    when one process ends, the others fail too, because they do not reach it any more.
    """
    if isinstance(error, ray.train.ControllerError):
        return cast("BaseException", error.controller_failure)
    if not isinstance(error, ray.train.WorkerGroupError):
        return MachineLeaves(str(error))  # the node was gone before all processes had left
    failures = [error.worker_failures[rank] for rank in sorted(error.worker_failures)]
    if any(getattr(failure, "preempted", False) for failure in failures):
        return MachineLeaves("a node was gone before all processes had left")
    raised = [getattr(failure, "_base_exc", failure) for failure in failures]
    telling = [one for one in raised if isinstance(one, (LtrayError, MachineLeaves, GpuBroken))]
    storage = [one for one in raised if is_storage_error(one)]
    return (telling or storage or raised)[0]
