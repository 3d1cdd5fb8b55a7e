from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.explainers.owen import owen_values

PLAYERS = 8


def halves(cells):
    places = np.flatnonzero(cells[0])
    if len(places) == 1:
        return None
    first = np.zeros_like(cells)
    first[0, places[: len(places) // 2]] = True
    return first, cells & ~first


def solve(game, *, players=PLAYERS, budget=10_000, tolerance=0.0, seed=0, count=PLAYERS, expired=lambda: False):
    """Values of each player, the half-widths, and what was found."""
    ends = game(np.array([[False] * count, [True] * count]))
    asking = owen_values(
        np.ones((1, count), np.bool_),
        halves,
        ends[1] - ends[0],
        players=players,
        budget=budget,
        tolerance=tolerance,
        expired=expired,
        random=np.random.default_rng(seed),
    )
    try:
        shown = next(asking)
        while True:
            shown = asking.send(game(shown[:, 0]))
    except StopIteration as ended:
        found = ended.value
    sizes = found.regions.sum(axis=(1, 2))[:, None]
    spread = found.regions[:, 0].astype(float).T
    return spread @ (found.values / sizes), spread @ (found.half_widths / sizes), found


def random_game(seed: int, count: int = PLAYERS):
    """Any value for every coalition, two targets."""
    table = np.random.default_rng(seed).normal(size=(2**count, 2))
    powers = 1 << np.arange(count)
    return lambda shown: table[shown @ powers]


def bent_game(seed: int, count: int = 64):
    """A small random network of the players: they interact, and there are more than can be enumerated."""
    random = np.random.default_rng(seed)
    inner, outer = random.normal(size=(count, 24)) / 3, random.normal(size=(24, 2))
    return lambda shown: np.tanh(shown @ inner) @ outer


def orders(places: list[int]):
    """Every order of the players in which each nested half stays together."""
    if len(places) == 1:
        yield places
        return
    left, right = places[: len(places) // 2], places[len(places) // 2 :]
    for a, b in product(list(orders(left)), list(orders(right))):
        yield a + b
        yield b + a


def brute_force(game, count=PLAYERS):
    values, number = np.zeros((count, 2)), 0
    for order in orders(list(range(count))):
        shown = np.zeros((1, count), np.bool_)
        before = game(shown)
        for player in order:
            shown[0, player] = True
            after = game(shown)
            values[player] += (after - before)[0]
            before = after
        number += 1
    return values / number


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_all_contexts_give_the_mean_over_every_order_that_keeps_halves_together(seed):
    game = random_game(seed)
    values, widths, found = solve(game)
    np.testing.assert_allclose(values, brute_force(game), atol=1e-9)
    assert found.stopped == "complete"
    assert widths.max() == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 400), st.integers(1, 32))
def test_values_add_up_whatever_the_budget_and_the_number_of_players(seed, budget, players):
    game = random_game(seed, 5)
    values, _, found = solve(game, budget=budget, players=players, count=5)
    ends = game(np.array([[False] * 5, [True] * 5]))
    np.testing.assert_allclose(values.sum(axis=0), ends[1] - ends[0], atol=1e-9)
    assert found.evaluations <= budget
    assert len(found.regions) <= max(1, players)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, PLAYERS - 1))
def test_a_player_without_effect_is_worth_nothing(seed, dummy):
    inner = random_game(seed)

    def game(shown):
        blind = shown.copy()
        blind[:, dummy] = False
        return inner(blind)

    np.testing.assert_allclose(solve(game)[0][dummy], 0, atol=1e-9)


def test_players_that_do_the_same_are_worth_the_same():
    def game(shown):
        pair = (shown[:, 0] | shown[:, 1]).astype(float)
        return np.stack([pair, shown.sum(axis=1) * pair], axis=1)

    values = solve(game)[0]
    np.testing.assert_allclose(values[0], values[1], atol=1e-12)


def test_an_additive_game_is_solved_exactly_by_sampling_and_stops_early():
    worth = np.random.default_rng(1).normal(size=(64, 2))
    values, _, found = solve(lambda shown: shown @ worth, players=64, count=64, tolerance=0.01)
    np.testing.assert_allclose(values, worth, atol=1e-9)
    assert found.stopped == "converged"
    assert found.evaluations < 64 * 2 * 8


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Many players, few contexts: the sampled half-width covers the full value in about 95 % of the cases."""
    covered: list[bool] = []
    for seed in range(12):
        game = bent_game(seed)
        truth, widths, ended = solve(game, players=64, count=64)
        assert ended.stopped == "complete"
        assert widths.max() == 0
        found, widths, ended = solve(game, players=64, count=64, budget=1000, seed=seed)
        assert ended.stopped == "budget"
        covered += (np.abs(found - truth) <= widths)[widths > 0].tolist()
    assert len(covered) > 1000
    assert 0.9 < np.mean(covered) < 1


def test_a_third_of_the_contexts_comes_close():
    game = bent_game(1)
    truth = solve(game, players=64, count=64)[0]
    found, _, ended = solve(game, players=64, count=64, budget=950)
    assert ended.evaluations <= 950
    assert np.linalg.norm(found - truth) < 0.6 * np.linalg.norm(truth)


def test_the_seed_decides_and_nothing_else_does():
    game = bent_game(3)
    one, again, other = (solve(game, players=64, count=64, budget=700, seed=seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_deadline_ends_with_coarser_regions():
    calls = iter([False, True])
    _, _, found = solve(random_game(4), expired=lambda: next(calls))
    assert found.stopped == "deadline"
    assert 1 < len(found.regions) < PLAYERS


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_players_are_no_special_case(count):
    game = random_game(5, count)
    values, _, found = solve(game, count=count)
    if count == 1:
        assert found.evaluations == 0
    np.testing.assert_allclose(values, brute_force(game, count), atol=1e-9)
