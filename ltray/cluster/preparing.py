"""The Ray Data job that makes a source's shards."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial

from ltray.cluster.tasks import SAID_EVERY_SECONDS, end, on_each_part, result_of
from ltray.data.archives.published import check_published
from ltray.data.archives.source import Found, Section
from ltray.data.archives.sources import open_source
from ltray.data.manifest import Manifest, read_manifest, write_manifest
from ltray.data.shards import plan, write_part
from ltray.errors import LtrayError, StageFailed
from ltray.files import remove_folder
from ltray.layout import DataFolder
from ltray.run import Run
from ltray.say import Say

STAGE = "prepare"
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
        remove_folder(run.folder.scratch)  # another run's command made them, after a crash of ours
        return read_manifest(run.data)
    try:
        manifest = _made(run, say)
    except StageFailed:
        raise
    except LtrayError:
        with suppress(OSError):
            remove_folder(run.folder.scratch)  # the same command would not go on from there
        raise
    say(_summary(manifest))
    _write_card(run.data)
    return manifest


def _made(run: Run, say: Say) -> Manifest:
    started = time.perf_counter()
    source = open_source(run.experiment.data, run.folder.scratch)
    planned = plan(source, run.pixels, partial(_on_the_cluster, say=say))
    write = partial(write_part, source=source, pixels=planned.pixels, folder=run.data)
    records = on_each_part(write, planned.parts, STAGE, say)
    remove_folder(run.folder.scratch)
    seconds = time.perf_counter() - started
    return write_manifest(run.data, planned, records, run.fingerprint, seconds)


def check_archives(run: Run, say: Say) -> None:
    """Compare the source's files with the MD5 that each was published with, where one was.

    Raises:
        LtrayError: one is another file, or not all of it.
    """
    import ray

    files = open_source(run.experiment.data).files()
    tasks = [ray.remote(check_published).remote(path) for path in files]
    for path, task in zip(files, tasks, strict=True):
        md5 = result_of(task, STAGE)
        say(f"{path.name}: {f'MD5 {md5}, as published' if md5 else 'no MD5 of it was published'}")


def _write_card(folder: DataFolder) -> None:
    import ray

    from ltray.analysis.card import write_card

    result_of(ray.remote(write_card).remote(folder), STAGE)


def _on_the_cluster(
    look_through: Callable[[Section], Found], sections: Sequence[Section], say: Say
) -> Iterator[Found]:
    """What a function gives for each section, looked through by tasks side by side."""
    import ray

    if len(sections) == 1:
        yield from map(look_through, sections)  # not worth a process of its own
        return
    size = max(1, -(-len(sections) // LOOKING_TASKS))
    groups = [sections[first : first + size] for first in range(0, len(sections), size)]
    tasks = [ray.remote(_look_through_all).remote(look_through, group) for group in groups]
    said = time.perf_counter()
    try:
        for number, task in enumerate(tasks):
            yield from result_of(task, STAGE)
            if time.perf_counter() - said > SAID_EVERY_SECONDS:
                said = time.perf_counter()
                say(f"{STAGE}: looked through {(number + 1) / len(tasks):.0%} of the source")
    finally:
        end(tasks)


def _look_through_all(
    look_through: Callable[[Section], Found], sections: Sequence[Section]
) -> list[Found]:
    return [look_through(section) for section in sections]


def _summary(manifest: Manifest) -> str:
    counts = ", ".join(f"{count:,} {split}" for split, count in manifest.counts.items())
    bad = f"; {manifest.quarantined:,} in the quarantine" if manifest.quarantined else ""
    return f"prepared {counts} images{bad} in {manifest.seconds:.1f} s"
