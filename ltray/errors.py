"""Every error that ltray raises on purpose.

LtrayError             a person's mistake: printed without a traceback, exit status 2
├── InvalidExperiment  everything that is wrong in one experiment file
├── ImagesUnknown      nothing tells how many images there will be, or how large
└── StageFailed        the work itself failed, not the person: exit status 1

MachineLeaves          a trial's machine is about to be taken away: it goes on elsewhere
"""

from collections.abc import Sequence
from difflib import get_close_matches


class LtrayError(Exception):
    """Says where, what was found and expected, and how to mend it.

    Args:
        where: file, key or folder, as the person knows it.
        problem: what was found there, and what was expected.
        mend: what to do about it.
    """

    exit_status = 2

    def __init__(self, where: str, problem: str, mend: str) -> None:
        super().__init__(where, problem, mend)

    def __str__(self) -> str:
        where, problem, mend = self.args
        return f"{where}: {problem}\n  to mend: {mend}"


class InvalidExperiment(LtrayError):
    """All problems of one experiment at once, so that mending takes one round."""

    def __init__(self, problems: Sequence[LtrayError]) -> None:
        Exception.__init__(self, tuple(problems))

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.args[0])


class ImagesUnknown(LtrayError):
    """Of a source that is not here; a person can say it."""


class StageFailed(LtrayError):
    """A stage could not do its work: a diverged dense run, a full disk."""

    exit_status = 1


class MachineLeaves(Exception):
    """The state is written; what is left is to be trained on another machine."""


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The nearest known word as `; did you mean 'x'?`, or nothing when none is near."""
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
