"""How commands end."""

import subprocess
import sys

import pytest

INTERRUPTED = "interrupted: the same command goes on from here\n"


def interrupted(at_exit: str, seconds: float) -> "subprocess.CompletedProcess[str]":
    """A process whose work is interrupted, with something left for the end."""
    code = (
        "import atexit, threading\n"
        "from ltray import command_line\n"
        f"command_line.EXIT_SECONDS = {seconds}\n"
        "for_ever = threading.Event().wait\n"
        f"{at_exit}\n"
        "def work():\n"
        "    raise KeyboardInterrupt\n"
        "command_line.exit_with(work)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "waits",
    ["atexit.register(for_ever)", "threading.Thread(target=for_ever).start()"],
    ids=["handler", "thread"],
)
def test_an_interrupted_command_ends_though_a_library_waits_for_ever(waits: str) -> None:
    # As tensorboardX does when Ctrl-C comes amid its writing.
    ended = interrupted(waits, seconds=0.1)
    assert (ended.returncode, ended.stderr) == (130, INTERRUPTED)


def test_where_the_process_goes_on_it_is_left_alone() -> None:
    """As in IPython's %run, which takes the exit status and gives the prompt again."""
    code = (
        "import time\n"
        "from ltray import command_line\n"
        "command_line.EXIT_SECONDS = 0.1\n"
        "def work():\n"
        "    raise KeyboardInterrupt\n"
        "try:\n"
        "    command_line.exit_with(work)\n"
        "except SystemExit:\n"
        "    time.sleep(1)\n"
        "print('goes on')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "goes on\n"


def test_an_interrupted_command_lets_libraries_end_what_they_can() -> None:
    ended = interrupted("atexit.register(print, 'written')", seconds=60.0)
    assert (ended.returncode, ended.stderr) == (130, INTERRUPTED)
    assert ended.stdout == "written\n"
