"""Counters: a draw depends on its name alone."""

from __future__ import annotations

import itertools

import torch

from bpgo.seeding import derive_seed, generator, numpy_generator


def draw(*keys: int | str) -> torch.Tensor:
    return torch.randn(8, generator=generator(*keys))


def test_same_name_same_draw() -> None:
    assert torch.equal(draw(1, "rollout", "p0", 3), draw(1, "rollout", "p0", 3))
    first, second = (numpy_generator(1, "prompts", 0).permutation(50) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_order_and_batch_do_not_matter() -> None:
    names = list(itertools.product(["p0", "p1"], range(4)))
    alone = {name: draw(1, "noise", *name) for name in names}
    for order in (names[::-1], names[3:5], names[5:]):
        assert all(torch.equal(draw(1, "noise", *name), alone[name]) for name in order)


def test_global_generators_are_left_alone() -> None:
    state = torch.get_rng_state()
    draw(1, "noise")
    assert torch.equal(torch.get_rng_state(), state)


def test_other_names_other_seeds() -> None:
    seeds = {
        derive_seed(seed, purpose, prompt, sample)
        for seed in range(3)
        for purpose in ("rollout", "evaluation")
        for prompt in ("p0", "p1")
        for sample in range(50)
    }
    assert len(seeds) == 3 * 2 * 2 * 50


def test_type_and_split_of_keys_count() -> None:
    names = [(1, "2"), ("1", 2), (1, 2), ("1", "2"), ("12",), (12,), ("1", "", "2"), (2, 1), ()]
    assert len({derive_seed(*keys) for keys in names}) == len(names)


def test_seeds_fit_both_libraries() -> None:
    assert all(0 <= derive_seed(number) < 2**63 for number in range(200))


def test_values_are_pinned() -> None:
    # The published runs depend on them: a change here changes every result.
    assert derive_seed(1, "rollout", 3, "p0", 0) == 4413041426235524459
    assert derive_seed() == 8203414616412130826
