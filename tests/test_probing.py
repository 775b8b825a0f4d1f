import pytest

from ltray.cluster.probing import is_time_for_another


@pytest.mark.parametrize(
    ("starts", "first", "again"),
    [(8, 8, True), (8, 20, True), (8, 23, False), (0, 29, False), (40, 5, True), (40, 8, False)],
)
def test_it_is_tried_twice_where_that_ends_within_a_minute_of_the_command(
    starts: float, first: float, again: bool
) -> None:
    assert is_time_for_another(starts, first) == again
