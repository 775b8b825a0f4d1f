from pathlib import Path

import pytest

from ltray.analysis.planning.bill import Instance, bill, read_prices, workers_on
from ltray.analysis.planning.estimate import Estimate
from ltray.errors import LtrayError
from ltray.experiment import Sweep

EIGHT_GPUS = Instance(cpus=96, gpus=8, gpu="X", per_hour=30.0)


def test_machines_are_paid_whole_from_command_to_report() -> None:
    machines, price = bill(9, Estimate(3600, 7200, 10800), EIGHT_GPUS, workers_each=8)
    assert machines == 2
    assert price == Estimate(60.0, 120.0, 180.0)


@pytest.mark.parametrize(
    ("sweep", "workers"),
    [
        (Sweep(), 8),
        (Sweep(gpus_per_trial=2), 4),
        (Sweep(gpus_per_trial=0), 96),
        (Sweep(gpus_per_trial=0, cpus_per_trial=10), 9),
        (Sweep(cpus_per_trial=48), 2),
    ],
)
def test_workers_of_a_machine_as_a_sweep_shares_it_out(sweep: Sweep, workers: int) -> None:
    assert workers_on(EIGHT_GPUS, sweep) == workers


def test_a_machine_that_holds_no_trial_is_refused() -> None:
    with pytest.raises(LtrayError, match="96 CPUs and 8 GPUs; a trial takes"):
        workers_on(EIGHT_GPUS, Sweep(gpus_per_trial=9))


def test_ltrays_own_table_says_when_and_where_its_prices_were_asked() -> None:
    prices = read_prices()
    assert prices.as_of >= "2025"
    assert prices.where
    assert all(one.per_hour > 0 for one in prices.instances.values())


def test_a_table_of_ones_own_takes_its_place(tmp_path: Path) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text(
        "as_of: 2026-11\ncurrency: EUR\nwhere: our rack\n"
        "instances: {node: {cpus: 32, gpus: 4, per_hour: 1.5}}\n"
    )
    prices = read_prices(table)
    assert (prices.currency, prices.instance("node").per_hour) == ("EUR", 1.5)
    with pytest.raises(LtrayError, match="no price of 'nod'; did you mean 'node'"):
        prices.instance("nod")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("as_of: [", "is no YAML"),
        ("as_of: 2026-11\n", "currency"),
        ("", "the table: Input should be"),
        ("{as_of: '1', currency: X, where: y, instances: {}}", "instances: .* at least 1 item"),
        (
            "{as_of: '1', currency: X, where: y, instances: {n: {cpus: 0, gpus: 0, per_hour: 1}}}",
            "instances.n.cpus",
        ),
        (
            "{as_of: '1', currency: X, where: y, instances: {n: {cpus: 1, gpus: 0, price: 1}}}",
            "instances.n",
        ),
        ("as_of: 2026-13-45\n", "is no YAML: month must be in 1..12"),
        (
            "{as_of: '1', currency: X, where: y, instances: {n: {cpus: on, gpus: 0, per_hour: 1}}}",
            "instances.n.cpus: Input should be a valid integer",
        ),
        ("{instances: {n: {cpus: 1}, n: {cpus: 2}}}", "the key 'n' is written twice"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(tmp_path: Path, text: str, said: str) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text(text)
    with pytest.raises(LtrayError, match=said):
        read_prices(table)


@pytest.mark.parametrize("written", ["2026-11-26", "2026"])
def test_a_date_of_any_form_is_taken_as_it_is_written(tmp_path: Path, written: str) -> None:
    table = tmp_path / "prices.yaml"
    rest = "currency: EUR\nwhere: here\ninstances: {n: {cpus: 1, gpus: 0, per_hour: 1}}\n"
    table.write_text(f"as_of: {written}\n{rest}")
    assert read_prices(table).as_of == written


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    table = tmp_path / "prices.yaml"
    table.write_bytes(b"\x9b\xff\x00")
    with pytest.raises(LtrayError, match="is no YAML"):
        read_prices(table)


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LtrayError, match="No such file"):
        read_prices(tmp_path / "none.yaml")
