"""What the commands share: their arguments, their lines of progress, their exit statuses."""

import argparse
import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ltray.errors import LtrayError

if TYPE_CHECKING:
    from ltray.cluster.session import Connection

FAILED = 1
INTERRUPTED = 130
EXIT_SECONDS = 10.0  # for what libraries do when the process ends
TRACKERS = ("wandb", "mlflow")


def parser(
    command: str, description: str, default: str | None = "digits.yaml"
) -> argparse.ArgumentParser:
    """The arguments that every command takes.

    Args:
        default: the experiment when none is given; with None the command names its own.
    """
    arguments = argparse.ArgumentParser(f"python -m ltray.{command}", description=description)
    if default is not None:
        arguments.add_argument(
            "experiment",
            nargs="?",
            metavar="EXPERIMENT.yaml",
            help=f"an experiment file or a run's folder; experiments/{default} when left out",
        )
    arguments.add_argument(
        "--root", type=_root, metavar="DIR", help="folder of runs and shards (default: ./runs)"
    )
    return arguments


def add_connection(arguments: argparse.ArgumentParser) -> None:
    """The arguments of the commands that need Ray."""
    arguments.add_argument(
        "--address", help="of a running Ray cluster, or auto; without it Ray starts here"
    )
    arguments.add_argument(
        "--ship-code",
        action="store_true",
        help="send this ltray to the workers, in place of the one that they have installed",
    )


def add_tracking(arguments: argparse.ArgumentParser) -> None:
    """The arguments of the commands that train."""
    arguments.add_argument(
        "--track",
        choices=TRACKERS,
        help="hand each trial's figures on to Weights & Biases or MLflow, too; where to is said"
        " in the environment variables that they read",
    )


def connection(options: argparse.Namespace) -> "Connection":
    """What `add_connection` asked for."""
    from ltray.cluster.session import Connection

    return Connection(options.address, options.ship_code)


def _root(text: str) -> Path:
    from ltray.locate import root_folder

    return root_folder(text)


def experiment_path(given: str | None, default: str = "digits.yaml") -> Path:
    """The experiment that a person named, or the default among those that come with ltray.

    Raises:
        LtrayError: the name is empty, or of a store that nothing here reads.
    """
    from ltray.files import at
    from ltray.locate import experiments_folder

    if given == "":
        raise LtrayError("EXPERIMENT.yaml", "an empty name", "name a file or a run's folder")
    return experiments_folder() / default if given is None else at(given, "EXPERIMENT.yaml")


def exit_with(
    work: Callable[[], int], interrupted: str = "the same command goes on from here"
) -> None:
    """Leave the process with the status that `work` returns, or that its error stands for.

    Args:
        interrupted: what is said of Ctrl-C.
    """
    try:
        status = work()
    except LtrayError as error:
        print(error, file=sys.stderr)
        status = error.exit_status
    except KeyboardInterrupt:
        print(f"interrupted: {interrupted}", file=sys.stderr)
        status = INTERRUPTED
        _leave_soon(status)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT):
            raise
        print(f"{error.filename or 'storage'}: {error.strerror}", file=sys.stderr)
        print("  to mend: make room or allow writing, then give the same command", file=sys.stderr)
        status = FAILED
    except Exception as error:
        from ltray.patience import is_store_error

        if not is_store_error(error):
            raise
        print(f"storage: {error}", file=sys.stderr)
        print("  to mend: see that it answers, then give the same command", file=sys.stderr)
        status = FAILED
    sys.exit(status)


def _leave_soon(status: int) -> None:
    """Bound how long the interpreter takes to end; where it goes on, in IPython say, do nothing.

    Ctrl-C may come amid a library's code: tensorboardX, interrupted while it writes, sometimes
    waits at the end, for ever, for a thread of its own that has not got the word to stop.
    """

    def leave() -> None:
        threading.main_thread().join()  # which ends when the interpreter begins to
        time.sleep(EXIT_SECONDS)
        os._exit(status)

    threading.Thread(target=leave, daemon=True).start()


def timed_lines() -> Callable[[str], None]:
    """A printer of lines of progress, each with the seconds since it was made."""
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {line}", flush=True)

    return say
