"""How often the tests find a difference between two models that do not differ: at most in 5% of studies."""

import numpy as np

from unspoiled.evaluate import Observed, compare, mcnemar
from unspoiled.evaluate._bootstrap import bootstrap
from unspoiled.evaluate._clustered import sign_flip

ALPHA = 0.05


def most(studies: int) -> float:
    """Return the largest share of false alarms that chance leaves to a test of level 5%, by three standard errors."""
    return ALPHA + 3 * (ALPHA * (1 - ALPHA) / studies) ** 0.5


def correlated(rng: np.random.Generator, prompts: int, members: int, alike: float) -> tuple[np.ndarray, np.ndarray]:
    """Return two models' outcomes, shape `(prompts, members)`, with equal rates.

    What a model does on a family is partly the prompt's (hard for both) and partly its own (alike for the members).
    """
    prompt = rng.normal(size=(prompts, 1))
    own = [alike * rng.normal(size=(prompts, 1)) + rng.normal(size=(prompts, members)) for _ in range(2)]
    return prompt + own[0] > 0.8, prompt + own[1] > 0.8


def discordant(a: np.ndarray, b: np.ndarray) -> tuple[int, int]:
    return int((a & ~b).sum()), int((b & ~a).sum())


def test_mcnemar_on_independent_prompts():
    rng, studies = np.random.default_rng(1), 2000
    alarms = sum(mcnemar(*discordant(*correlated(rng, 60, 1, 1.0))) <= ALPHA for _ in range(studies))
    assert 0.01 < alarms / studies <= most(studies)


def test_families_break_mcnemar_and_not_the_sign_flip():
    """40 families of 5. That McNemar fails here shows that this test would see a test that fails."""
    rng, studies = np.random.default_rng(2), 1000
    alarms = {"McNemar": 0, "sign flip": 0}
    for _ in range(studies):
        a, b = correlated(rng, 40, 5, 1.5)
        alarms["McNemar"] += mcnemar(*discordant(a, b)) <= ALPHA
        alarms["sign flip"] += sign_flip((a.astype(int) - b).sum(axis=1).tolist()) <= ALPHA
    assert alarms["McNemar"] / studies > 0.15
    assert 0.02 < alarms["sign flip"] / studies <= most(studies)


def test_the_sign_flip_where_one_model_fails_by_families_and_the_other_by_responses():
    """Equal rates, but differences that are not symmetric about 0, as the test's derivation takes them to be."""
    rng, studies = np.random.default_rng(3), 1000
    alarms = 0
    for _ in range(studies):
        by_family, by_response = np.repeat(rng.random((40, 1)) < 0.2, 5, axis=1), rng.random((40, 5)) < 0.2
        alarms += sign_flip((by_family.astype(int) - by_response).sum(axis=1).tolist()) <= ALPHA
    assert 0.02 < alarms / studies <= most(studies)


def test_the_bootstrap_of_skewed_losses():
    """Lognormal losses with a few large ones; 15 rows, and 15 families of 3, alike within."""
    rng, studies = np.random.default_rng(4), 300
    names = [str(i) for i in range(15)]
    rows = families = naive = 0
    for _ in range(studies):
        hard = rng.normal(size=(15, 1))
        a, b = (np.exp(hard + 0.7 * rng.normal(size=(15, 1)) + 0.2 * rng.normal(size=(15, 3))) for _ in range(2))
        rows += bootstrap(list((a - b)[:, 0])).p_value <= ALPHA
        families += bootstrap(list((a - b).ravel()), [name for name in names for _ in range(3)]).p_value <= ALPHA
        naive += bootstrap(list((a - b).ravel())).p_value <= ALPHA
    assert rows / studies <= most(studies)
    assert families / studies <= most(studies)
    assert naive / studies > 0.15


def test_holm_over_rates_and_means_together():
    """Two comparisons by each of the three tests: any false alarm among them in at most 5% of studies."""
    rng, studies = np.random.default_rng(5), 250
    independent = [str(i) for i in range(60)]
    families = [str(i // 3) for i in range(60)]
    any_alarm = any_unadjusted = 0
    for _ in range(studies):
        both = [{}, {}]
        for measure, members in (("refusal", 1), ("over_refusal", 1), ("safe:rules", 3), ("domain:x", 3)):
            for seen, outcomes in zip(both, correlated(rng, 60 // members, members, 1.5), strict=True):
                seen[measure] = Observed(outcomes.ravel().tolist(), independent if members == 1 else families)
        hard = rng.normal(size=30)
        for seen in both:
            seen["loss:x"] = Observed(np.exp(hard + 0.5 * rng.normal(size=30)).tolist(), independent[:30])
            seen["loss:y"] = Observed(np.exp(hard + rng.normal(size=30)).tolist(), independent[:30])
        found = compare({"a": both[0], "b": both[1]}, [("a", "b")])
        assert {c.test for c in found} == {"McNemar", "sign flip", "bootstrap"}
        any_alarm += any(c.verdict != "not resolved" for c in found)
        any_unadjusted += min(c.p_value for c in found) <= ALPHA * len(found)
    assert any_alarm / studies <= most(studies)
    assert any_unadjusted / studies > 0.12
