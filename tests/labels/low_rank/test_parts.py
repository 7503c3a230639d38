"""Each part of the encoder against an independent computation of what it promises."""

from types import SimpleNamespace

import numpy as np
import pytest

from slg_wds.labels.low_rank import steps
from slg_wds.labels.low_rank.classes import ClassTable
from slg_wds.labels.low_rank.decomposition import DENSE, SUBSPACE, decompose, refined
from slg_wds.labels.low_rank.fitting import fit
from slg_wds.labels.low_rank.tables import Table, parts


def views(crops, classes, rank=5, noise=0.1, seed=0):
    """Distributions of a few directions, of which each is weaker than the one before, and a little noise."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(0, 1, (rank, classes)) / np.arange(1, rank + 1)[:, None]
    logits = rng.normal(0, 2, classes) + rng.normal(0, 1, (crops, rank)) @ directions
    logits += rng.normal(0, noise, (crops, classes))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("crops", "entries"), [(300, 200), (200, 300), (40, 200), (200, 40)])
def test_components_are_those_of_a_singular_value_decomposition(crops, entries):
    assert 40 < DENSE < 200
    found = decompose(views(crops, entries))
    logs = found.weighted.logs
    _, singular, rows = np.linalg.svd(logs, full_matrices=False)
    variances = np.square(singular) / crops
    assert np.allclose(found.variances[:5], variances[:5], rtol=1e-6)
    assert np.allclose(np.abs((found.directions[:5] * rows[:5]).sum(axis=1)), 1.0, atol=1e-6)
    assert np.allclose(found.beyond[:6], [variances[i:].sum() for i in range(6)], rtol=1e-6)


def test_components_of_more_classes_follow_from_those_of_few():
    probabilities = views(250, 180)
    few = decompose(probabilities[:, :60] / probabilities[:, :60].sum(axis=1, keepdims=True))
    near, exact = refined(probabilities, few), decompose(probabilities)
    assert len(near.variances) <= SUBSPACE
    assert np.allclose(near.variances[:4], exact.variances[:4], rtol=0.02)
    gram = near.directions @ near.directions.T
    assert np.allclose(gram, np.eye(len(gram)), atol=1e-8)


def test_identical_crops_have_no_components_that_are_not_numbers():
    probabilities = np.repeat(views(1, 200), 150, axis=0)
    for found in (decompose(probabilities), refined(probabilities, decompose(probabilities))):
        assert np.isfinite(found.directions).all() and np.allclose(found.variances, 0.0, atol=1e-20)


def test_what_classes_cost_that_share_an_entry():
    probabilities = views(37, 90)
    table = ClassTable(probabilities.astype(np.float32))
    exact = probabilities[:, table.order]
    for count, lost in zip(table.counts[:-1], table.lost[:-1], strict=True):
        others = exact[:, count:]
        even = others.sum(axis=1, keepdims=True) / others.shape[1]
        assert lost == pytest.approx((others * np.log(others / even)).sum(axis=1).mean(), rel=1e-4)
    assert table.lost[-1] == 0 and table.counts[-1] == 90


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_parts_of_a_table_are_those_that_are_made_anew(share):
    probabilities = views(80, 120).astype(np.float32)
    some = np.random.default_rng(1).random(80) < share
    for found, crops in zip(ClassTable(probabilities).split(some), (some, ~some), strict=True):
        anew = ClassTable(probabilities[crops])
        assert np.array_equal(found.order, anew.order)
        assert np.allclose(found.lost, anew.lost, rtol=1e-9, atol=1e-12)
        assert np.array_equal(found.keep(16).probabilities, anew.keep(16).probabilities)


@pytest.mark.parametrize("kept", [8, 50])
def test_the_divergence_is_that_over_all_classes(kept):
    probabilities = views(70, 50)
    entries = ClassTable(probabilities).keep(kept)
    rng = np.random.default_rng(2)
    size = entries.probabilities.shape[1]
    table = Table(rng.normal(0, 1, size), rng.normal(0, 1, (2, size)), rng.normal(0, 1, (70, 2)))
    logits = table.mean + table.coefficients @ table.rows
    stored = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    full = np.repeat(stored[:, -1:] / max(50 - kept, 1), 50, axis=1)
    full[:, entries.classes] = stored[:, :kept]
    by_hand = (probabilities * np.log(probabilities / full)).sum(axis=1)
    assert np.allclose(entries.divergence(table), by_hand, rtol=1e-10)


def test_the_fit_is_closer_than_the_components_it_starts_from():
    entries = ClassTable(views(200, 150, noise=0.5)).keep(64)
    components = decompose(entries.probabilities)
    before = entries.divergence(components.table(3)).mean()
    after = fit(entries, components, 3).divergence.mean()
    assert 0 < after < 0.97 * before


def test_parts_cover_all_crops_once():
    for crops, width in [(0, 10), (1, 10**6), (1000, 129), (5, 1)]:
        assert [i for part in parts(crops, width) for i in range(crops)[part]] == list(range(crops))


@pytest.mark.parametrize("floor", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("first", [0, 40, 90, 255])
def test_the_search_ends_at_the_largest_step_and_soon(monkeypatch, floor, first):
    """Divergences that follow the law exactly: the best code is known, and from afar few steps reach it."""
    tried = []

    def rounded(fitted, code):
        tried.append(code)
        kl = floor + (1.0 - floor) * 2.0 ** ((77.4 - code) / (steps.STEPS_AN_OCTAVE / 2))
        return SimpleNamespace(block=SimpleNamespace(step_code=code), divergence=np.array([kl]))

    monkeypatch.setattr(steps, "rounded", rounded)
    fitted = SimpleNamespace(divergence=np.array([floor]))
    step = steps.LARGEST_STEP * 2.0 ** (-first / steps.STEPS_AN_OCTAVE)
    found = steps.largest_step(fitted, step, steps.Limits(1.0, np.inf))
    assert found.found.block.step_code == 78
    assert len(tried) <= 14 and len(tried) == len(set(tried))
