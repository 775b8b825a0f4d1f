import numpy as np

from ltray.randomness import hashes, permutation, seed_for, uniforms


def test_hashes_are_splitmix64() -> None:
    # The first outputs of the published generator for seed 1234567.
    assert hashes(1234567, np.arange(3)).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_seeds_differ_by_every_part_and_fit_torch() -> None:
    seeds = {
        seed_for(seed, purpose, epoch)
        for seed in range(9)
        for purpose in "ab"
        for epoch in range(9)
    }
    assert len(seeds) == 9 * 2 * 9
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_for(0, "order", 1) == seed_for(0, "order", 1)
    assert seed_for(1, 23) != seed_for(12, 3)


def test_a_permutation_has_every_number_once_and_depends_on_the_seed() -> None:
    one, two = (
        permutation(seed_for(0, "order", 0), 1000),
        permutation(seed_for(0, "order", 1), 1000),
    )
    assert sorted(one.tolist()) == list(range(1000))
    assert one.tolist() != two.tolist()


def test_uniforms_are_uniform_on_the_unit_interval() -> None:
    values = uniforms(seed_for(3, "flip", 2), np.arange(100_000))
    assert values.min() >= 0
    assert values.max() < 1
    # 100,000 draws: a mean or share this far off would be a 6-sigma event.
    assert abs(values.mean() - 0.5) < 6 * 0.2887 / 316
    assert abs((values < 0.25).mean() - 0.25) < 6 * 0.433 / 316
