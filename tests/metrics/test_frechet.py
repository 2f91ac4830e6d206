"""Fréchet distances equal SciPy's, in one piece or merged; the Inception score its definition."""

import numpy as np
import pytest
import scipy.linalg
import scipy.special

from psrjax.errors import UserError
from psrjax.metrics import frechet


def scipy_distance(a, b):
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    apart = np.square(a.mean(0) - b.mean(0)).sum()
    return apart + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)


@pytest.fixture(scope="module")
def sets():
    random = np.random.default_rng(0)
    mix = random.normal(size=(24, 24)) / 5
    return random.normal(size=(200, 24)), random.normal(0.3, 1, size=(150, 24)) @ mix + 5


def test_frechet_distance_equals_sqrtm_of_scipy(sets):
    found = frechet.frechet_distance(*map(frechet.Moments.of, sets))
    np.testing.assert_allclose(found, scipy_distance(*sets), rtol=1e-5)


def test_singular_covariances_give_the_singular_values_of_the_centred_product(sets):
    a, b = sets[0][:9], sets[1][:12]  # fewer vectors than features
    rows = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b)]
    overlap = np.linalg.svd(rows[0] @ rows[1].T, compute_uv=False).sum()
    apart = np.square(a.mean(0) - b.mean(0)).sum()
    expected = apart + sum(np.square(x).sum() for x in rows) - 2 * overlap
    found = frechet.frechet_distance(*map(frechet.Moments.of, (a, b)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_merged_pieces_are_the_whole_in_fixed_memory(sets):
    whole, total = frechet.Moments.of(sets[1]), frechet.Moments.empty(24)
    for piece in np.array_split(sets[1], [1, 7, 64, 64]):
        total = total.merge(frechet.Moments.of(piece))
        assert total.scatter.shape == (24, 24)
    assert total.count == whole.count
    np.testing.assert_allclose(total.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(total.covariance, np.cov(sets[1].T), rtol=1e-9, atol=1e-12)


def test_a_set_is_at_no_distance_of_itself_and_a_shift_is_its_square(sets):
    mine = frechet.Moments.of(sets[0])
    assert frechet.frechet_distance(mine, mine) < 1e-6
    moved = frechet.Moments.of(sets[0] + 0.5)
    np.testing.assert_allclose(frechet.frechet_distance(mine, moved), 24 * 0.25, rtol=1e-9)


def test_too_few_or_broken_features_are_refused():
    with pytest.raises(UserError, match="at least 2 features"):
        frechet.frechet_distance(*[frechet.Moments.of(np.ones((1, 3)))] * 2)
    with pytest.raises(UserError, match="not finite"):
        frechet.Moments.of(np.array([[np.nan, 1.0]]))


def test_few_vectors_have_the_distance_of_their_moments_and_weights_repeat_them(sets):
    a, b = sets[0][:9], sets[1][:12]
    expected = frechet.frechet_distance(*map(frechet.Moments.of, (a, b)))
    np.testing.assert_allclose(frechet.frechet_distance_of_few(a, b), expected, rtol=1e-6)
    counts = np.array([0, 2, 1, 3, 0, 1, 1, 1, 2.0])
    repeated = np.repeat(a, counts.astype(int), axis=0)
    found = frechet.frechet_distance_of_few(a, b, counts)
    np.testing.assert_allclose(found, frechet.frechet_distance_of_few(repeated, b), rtol=1e-9)
    np.testing.assert_allclose(
        frechet.frechet_distance_of_few(*sets), scipy_distance(*sets), rtol=1e-5
    )
    with pytest.raises(UserError, match="at least 2 features"):
        frechet.frechet_distance_of_few(a[:1], b)


def test_the_inception_score_equals_its_definition_whatever_the_batches():
    logits = np.random.default_rng(1).normal(0, 2, (53, 8))
    p = scipy.special.softmax(logits, 1)
    expected = []
    for i in range(10):
        part = p[i::10]
        expected.append(
            np.exp(np.mean([scipy.special.rel_entr(q, part.mean(0)).sum() for q in part]))
        )
    score = frechet.InceptionScore.empty(8)
    for piece in np.array_split(logits, [10, 11, 40]):
        score = score.add(piece)
    np.testing.assert_allclose(score.compute(), (np.mean(expected), np.std(expected)), rtol=1e-9)


def test_inception_scores_merge_in_any_order_and_too_few_images_are_refused():
    logits = np.random.default_rng(1).normal(0, 2, (60, 8))
    empty = frechet.InceptionScore.empty(8)
    whole, parts = empty.add(logits), [empty.add(half) for half in (logits[:30], logits[30:])]
    for total in (parts[0].merge(parts[1]), parts[1].merge(parts[0])):
        np.testing.assert_allclose(total.compute(), whole.compute(), rtol=1e-12)
    with pytest.raises(UserError, match="10 splits needs as many images: 9"):
        empty.add(logits[:9]).compute()


def test_act_l1_is_the_sum_of_differences_of_a_clip():
    video, truth = np.array([[1.0, -2], [0, 0]]), np.array([[0.0, 2], [0, 0]])
    np.testing.assert_array_equal(frechet.act_l1(video, truth), [5, 0])
