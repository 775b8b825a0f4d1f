"""The Ray Data job that makes a source's shards."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ltray.analysis.card import write_card
from ltray.cluster.tasks import SAID_EVERY_SECONDS, CpuWork, stage_error
from ltray.data.archives.published import check_published
from ltray.data.archives.source import Found, Section, Source
from ltray.data.archives.sources import open_source
from ltray.data.fingerprint import source_facts
from ltray.data.manifest import Manifest, read_manifest, write_manifest
from ltray.data.shards import plan, write_part
from ltray.errors import LtrayError, StageFailed
from ltray.files import is_local, is_there, remove_folder
from ltray.layout import DataFolder
from ltray.run import Run
from ltray.say import Say

STAGE = "prepare"
LOOKING_TASKS = 64  # as many at most look through the sections of a source side by side
SMALL_BYTES = 64 * 1024 * 1024  # a source of one section that is not worth a process of its own


def prepare(run: Run, cpu_work: CpuWork, say: Say) -> Manifest:
    """Make the run's shards, or find them made; needs a session.

    Parts are planned here, from what tasks find in the source's sections; then one row of a Ray
    Data set is one part, written whole by the task that makes it, so names and bytes do not depend
    on the cluster. Parts that are there are not made again.

    Raises:
        LtrayError: the source is not what it should be.
        StageFailed: a part could not be written.
    """
    if is_there(run.data.manifest):
        remove_copies(run, say)  # of ours, if another run's command made the shards after a crash
        return read_manifest(run.data)
    _say_other_copies(run, say)
    try:
        manifest = _made(run, cpu_work, say)
    except StageFailed:
        raise
    except LtrayError:
        remove_copies(run, say)  # the same command would not go on from there
        raise
    remove_copies(run, say)
    say(_summary(manifest))
    list(cpu_work.on_each(write_card, [run.data], STAGE))
    return manifest


def _made(run: Run, cpu_work: CpuWork, say: Say) -> Manifest:
    started = time.perf_counter()
    source = open_source(run.experiment.data, run.folder.scratch)
    look_through = partial(_on_the_cluster, source=source, cpu_work=cpu_work, say=say)
    planned = plan(source, run.pixels, look_through)
    _check_unchanged(run)
    write = partial(write_part, source=source, pixels=planned.pixels, folder=run.data)
    try:
        records = cpu_work.on_each_part(write, planned.parts, STAGE)
    except StageFailed:
        raise
    except LtrayError:
        _check_unchanged(run, run.data)
        raise
    _check_unchanged(run, run.data)
    seconds = time.perf_counter() - started
    return write_manifest(run.data, planned, records, run.fingerprint, seconds)


def remove_copies(run: Run, say: Say) -> None:
    """Remove what the source copied; they are of no use any more, and no reason to fail."""
    try:
        remove_folder(run.folder.scratch)
    except OSError as error:
        say(f"warning: {run.folder.scratch} is of no use any more, and stays: {error}")


def _say_other_copies(run: Run, say: Say) -> None:
    root = run.folder.path.parent
    if not is_local(root):
        return
    for path in sorted(root.glob(f"*/{run.folder.scratch.name}")):
        if path != run.folder.scratch:
            say(
                f"{path} holds images that another prepare has copied; if it was interrupted, its"
                " own command goes on from there, and else the folder can be removed"
            )


def _check_unchanged(run: Run, made: DataFolder | None = None) -> None:
    """Refuse a source that is not what it was when the run was located.

    Args:
        made: what was made of it since, which goes.
    """
    try:
        facts = source_facts(run.experiment.data)
    except LtrayError:
        return  # it is away, which whoever reads it will tell
    if facts.fingerprint == run.fingerprint:
        return
    if made is not None:
        remove_folder(made.path)
    found = f"{run.experiment.data.path} was changed: it is not what the run was begun with"
    raise LtrayError("data.path", found, "give the command again, with the experiment's own file")


def check_archives(run: Run, cpu_work: CpuWork, say: Say) -> None:
    """Compare the source's files with the MD5 that each was published with, where one was.

    Raises:
        LtrayError: one is another file, or not all of it.
    """
    files = open_source(run.experiment.data).files()
    sums = cpu_work.on_each(check_published, files, STAGE)
    for path, md5 in zip(files, sums, strict=True):
        say(f"{path.name}: {f'MD5 {md5}, as published' if md5 else 'no MD5 of it was published'}")


def _on_the_cluster(
    look_through: Callable[[Section], Found],
    sections: Sequence[Section],
    source: Source,
    cpu_work: CpuWork,
    say: Say,
) -> Iterator[Found]:
    """What a function gives for each section, looked through by tasks side by side."""
    if len(sections) == 1 and sum(path.stat().st_size for path in source.files()) < SMALL_BYTES:
        try:
            found = look_through(sections[0])
        except OSError as error:
            raise stage_error(STAGE, error) from error
        yield found
        return
    size = max(1, -(-len(sections) // LOOKING_TASKS))
    groups = [sections[first : first + size] for first in range(0, len(sections), size)]
    found_in_groups = cpu_work.on_each(partial(_look_through_all, look_through), groups, STAGE)
    said = time.perf_counter()
    for number, found_in_group in enumerate(found_in_groups, start=1):
        yield from found_in_group
        if time.perf_counter() - said > SAID_EVERY_SECONDS:
            said = time.perf_counter()
            say(f"{STAGE}: looked through {number / len(groups):.0%} of the source")


def _look_through_all(
    look_through: Callable[[Section], Found], sections: Sequence[Section]
) -> list[Found]:
    return [look_through(section) for section in sections]


def _summary(manifest: Manifest) -> str:
    counts = ", ".join(f"{count:,} {split}" for split, count in manifest.counts.items())
    bad = f"; {manifest.quarantined:,} in the quarantine" if manifest.quarantined else ""
    return f"prepared {counts} images{bad} in {manifest.seconds:.1f} s"
