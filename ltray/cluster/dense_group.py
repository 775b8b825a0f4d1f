"""A dense run on several GPUs: a Tune trial that lets Ray Train's workers compute.

Tune starts it again when it fails, and rows and errors reach the driver, as for every other trial.
"""

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import ray.train

from ltray.cluster.metrics import DENSE, trial_series, unseen
from ltray.cluster.nodes import Demands
from ltray.cluster.trials import Reports, Row, is_due, place_of, report_error
from ltray.errors import LtrayError
from ltray.run import Run

# Ray Train takes reports every two seconds; one that comes before the last was taken waits.
REPORT_EVERY_SECONDS = 5.0


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
    # Not above: the driver imports this module, and would wait for torch.
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    from ltray.cluster.tuning import stored_in

    replicate = config["replicate"]
    trainer = TorchTrainer(
        partial(_work, run=run, wanted=wanted, replicate=replicate),
        train_loop_config=worker,
        # What travels on the CPU does so by gloo; for GPUs the processes add nccl themselves, since
        # only they know whether torch sees them.
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=True,
            resources_per_worker={"CPU": worker["cpus"], "GPU": worker["gpus"]},
        ),
        run_config=ray.train.RunConfig(
            name=str(replicate),
            **stored_in(storage),
            callbacks=[TuneReportCallback()],
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),  # else it logs every row
        ),
    )
    try:
        trainer.fit()
    except ray.train.WorkerGroupError as error:
        report_error(_cause(error))


def _work(config: Row, run: Run, wanted: Demands, replicate: int) -> None:
    """What each process does."""
    from ltray.group import Processes
    from ltray.training.dense import train_dense

    place = place_of(config, wanted)
    group = Processes(place.device)
    # Each report waits for all processes, so the first says for all when it is time.
    due = partial(is_due, every_seconds=REPORT_EVERY_SECONDS)
    series = trial_series(run, replicate, DENSE, tickets=1)
    with series if group.rank == 0 else nullcontext(unseen) as see:
        reports = Reports(ray.train.report, lambda sent: group.first(partial(due, sent)), see)
        train_dense(run, replicate, place, lambda row: reports.add([row], []), group)
        reports.flush()


def _cause(error: ray.train.WorkerGroupError) -> BaseException:
    """The error that stopped the group.

    One that was raised on purpose comes first, then the processes by rank: when one process ends,
    the others fail too, because they do not reach it any more.
    """
    failures = [error.worker_failures[rank] for rank in sorted(error.worker_failures)]
    raised = [getattr(failure, "_base_exc", failure) for failure in failures]
    on_purpose = [one for one in raised if isinstance(one, LtrayError)]
    return (on_purpose or raised)[0]
