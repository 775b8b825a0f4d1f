"""Storage that fails for a while is waited for; what would fail again is not."""

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ltray import patience
from ltray.errors import StageFailed
from ltray.patience import is_storage_error, patiently

RUN = Path("/disk/runs/some")


class FailingStorage:
    """Work that raises one error after the other, and then gives its name."""

    def __init__(self, errors: Iterable[BaseException]) -> None:
        self._errors = iter(errors)
        self.tries = 0

    def __call__(self) -> str:
        self.tries += 1
        for error in self._errors:
            raise error
        return "done"


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "WAITS_SECONDS", (0.0,) * 3)


def store_errors() -> list[Any]:
    botocore = pytest.importorskip("botocore.exceptions")
    return [
        botocore.EndpointConnectionError(endpoint_url="http://store"),
        botocore.ReadTimeoutError(endpoint_url="http://store"),
    ]


def test_work_goes_on_when_storage_answers_again() -> None:
    for error in (OSError(errno.EIO, "input/output error"), TimeoutError(), *store_errors()):
        work = FailingStorage([error, error])
        assert patiently(work, RUN) == "done"
        assert work.tries == 3


def test_patience_ends() -> None:
    work = FailingStorage([OSError(errno.EIO, "input/output error")] * 100)
    with pytest.raises(OSError, match="input/output error"):
        patiently(work, RUN)
    assert work.tries == 4


@pytest.mark.parametrize("error", [FileNotFoundError(), PermissionError(), ValueError()])
def test_what_would_fail_again_is_not_tried_again(error: Exception) -> None:
    work = FailingStorage([error])
    with pytest.raises(type(error)):
        patiently(work, RUN)
    assert work.tries == 1
    assert not is_storage_error(error)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_clear_error_at_once(number: int) -> None:
    work = FailingStorage([OSError(number, "no room", "/disk/runs/some/tickets.parquet")])
    with pytest.raises(
        StageFailed, match=r"/disk/runs/some/tickets.parquet: no room; nothing is lost"
    ):
        patiently(work, RUN)
    assert work.tries == 1


def test_a_nodes_own_full_disk_is_not_the_roots() -> None:
    work = FailingStorage([OSError(errno.ENOSPC, "no room", "/home/me/.cache/part")] * 100)
    with pytest.raises(OSError, match="no room"):
        patiently(work, RUN)
    assert work.tries == 4
