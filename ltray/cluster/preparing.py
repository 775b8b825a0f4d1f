"""The Ray Data job that makes a source's shards."""

import logging
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ltray.cluster.session import reason_of
from ltray.data.archives.published import check_published
from ltray.data.archives.source import Found, Section, Source
from ltray.data.archives.sources import open_source
from ltray.data.manifest import Manifest, read_manifest, write_manifest
from ltray.data.pixels import Pixels
from ltray.data.shards import PartRecord, Plan, plan, write_part
from ltray.errors import LtrayError, StageFailed
from ltray.layout import DataFolder
from ltray.run import Run
from ltray.say import Say

LOOKING_TASKS = 64  # as many at most look through the sections of a source side by side


def prepare(run: Run, say: Say) -> Manifest:
    """Make the run's shards, or find them made; needs a session.

    Parts are planned here, from what tasks find in the source's sections; then one row of a Ray
    Data set is one part, written whole by the task that makes it, so names and bytes do not depend
    on the cluster. Parts that are there are not made again.

    Raises:
        LtrayError: the source is not what it should be.
        StageFailed: a part could not be written.
    """
    if run.data.manifest.is_file():
        return read_manifest(run.data)
    started = time.perf_counter()
    source = open_source(run.experiment.data)
    planned = plan(source, run.pixels, _on_the_cluster)
    records = _written(planned, source, run.data, say)
    seconds = time.perf_counter() - started
    manifest = write_manifest(run.data, planned, records, run.fingerprint, seconds)
    say(_summary(manifest))
    _write_card(run.data)
    return manifest


def check_archives(run: Run, say: Say) -> None:
    """Compare the source's files with the MD5 that each was published with, where one was.

    Raises:
        LtrayError: one is another file, or not all of it.
    """
    import ray

    files = open_source(run.experiment.data).files()
    tasks = [ray.remote(check_published).remote(path) for path in files]
    for path, task in zip(files, tasks, strict=True):
        try:
            md5 = ray.get(task)
        except ray.exceptions.RayError as error:
            raise _failure(error) from None
        say(f"{path.name}: {f'MD5 {md5}, as published' if md5 else 'no MD5 of it was published'}")


def _write_card(folder: DataFolder) -> None:
    import ray

    from ltray.analysis.card import write_card

    try:
        ray.get(ray.remote(write_card).remote(folder))
    except ray.exceptions.RayError as error:
        raise _failure(error) from None


def _on_the_cluster(
    look_through: Callable[[Section], Found], sections: Sequence[Section]
) -> Iterator[Found]:
    """What a function gives for each section, looked through by tasks side by side."""
    import ray

    size = max(1, -(-len(sections) // LOOKING_TASKS))
    if len(sections) == 1:
        yield from map(look_through, sections)  # not worth a process of its own
        return
    groups = [sections[first : first + size] for first in range(0, len(sections), size)]
    tasks = [ray.remote(_look_through_all).remote(look_through, group) for group in groups]
    for task in tasks:
        try:
            found = ray.get(task)
        except ray.exceptions.RayError as error:
            raise _failure(error) from None
        yield from found


def _look_through_all(
    look_through: Callable[[Section], Found], sections: Sequence[Section]
) -> list[Found]:
    return [look_through(section) for section in sections]


def _written(planned: Plan, source: Source, folder: DataFolder, say: Say) -> list[PartRecord]:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False  # our own lines tell
    rows = [{"part": pickle.dumps(part)} for part in planned.parts]
    data_set = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _write_row, fn_kwargs={"source": source, "pixels": planned.pixels, "folder": folder}
    )
    records: list[PartRecord] = []
    images = 0
    said = started = time.perf_counter()
    try:
        for row in data_set.iter_rows():
            outcome = pickle.loads(row["outcome"])
            if isinstance(outcome, Exception):
                raise outcome
            records.append(outcome)
            images += records[-1].rows
            if time.perf_counter() - said > 10:
                said = time.perf_counter()
                say(_progress(len(records), len(rows), images, said - started))
    except Exception as error:
        raise _failure(error) from error
    return records


def _write_row(
    row: dict[str, Any], source: Source, pixels: Pixels, folder: DataFolder
) -> dict[str, bytes]:
    """The record of a part, or the error that its maker is to hear: Ray Data would lose it."""
    outcome: PartRecord | Exception
    try:
        outcome = write_part(pickle.loads(row["part"]), source, pixels, folder)
    except (LtrayError, OSError) as error:
        outcome = error
    return {"outcome": pickle.dumps(outcome)}


def _failure(error: BaseException) -> LtrayError:
    reason = reason_of(error)
    if isinstance(reason, LtrayError):
        return reason
    return StageFailed("prepare", str(reason), "mend that and give the same command again")


def _progress(parts: int, of: int, images: int, seconds: float) -> str:
    left = seconds / parts * (of - parts)
    rate = images / seconds
    return f"prepare: {parts}/{of} parts, {rate:,.0f} images/s, about {left:,.0f} s left"


def _summary(manifest: Manifest) -> str:
    counts = ", ".join(f"{count:,} {split}" for split, count in manifest.counts.items())
    bad = f"; {manifest.quarantined:,} in the quarantine" if manifest.quarantined else ""
    return f"prepared {counts} images{bad} in {manifest.seconds:.1f} s"
