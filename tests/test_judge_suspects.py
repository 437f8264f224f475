"""Likely label errors: found among real digits whose labels were changed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_predict

from convarium.judge.suspects import suspects


@pytest.fixture(scope="module")
def flipped() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Out-of-fold probabilities and labels of real digits, 5 % of the labels changed; which were."""
    pictures, labels = load_digits(return_X_y=True)
    draw = np.random.default_rng(0)
    wrong = np.zeros(len(labels), bool)
    wrong[draw.permutation(len(labels))[: len(labels) // 20]] = True
    changed = np.where(wrong, (labels + draw.integers(1, 10, len(labels))) % 10, labels)
    model = LogisticRegression(C=0.01, max_iter=300)
    return cross_val_predict(model, pictures / 4, changed, cv=3, method="predict_proba"), changed, wrong


def test_changed_labels_are_found(flipped):
    p, changed, wrong = flipped
    found = suspects(p, changed)
    places = [s.index for s in found]
    precision, recall = wrong[places].mean(), wrong[places].sum() / wrong.sum()
    assert precision > 0.65
    assert recall > 0.85
    score = np.full(len(changed), -2.0)
    score[places] = [s.score for s in found]
    # By chance the average precision is the share of changed labels, 5 %.
    assert average_precision_score(wrong, score) > 0.85


def test_the_likely_class_is_the_right_one(flipped):
    p, changed, wrong = flipped
    truth = load_digits().target
    found = [s for s in suspects(p, changed) if wrong[s.index]]
    assert np.mean([s.likely == truth[s.index] for s in found]) > 0.9
    assert all(s.given == changed[s.index] for s in found)


def test_scores_fall():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.3, 0.7], [0.05, 0.95], [0.1, 0.9]])
    found = suspects(p, np.array([0, 0, 1, 1, 0, 0]))
    assert [s.index for s in found] == [4, 5]
    assert found[0].score == pytest.approx(0.9)
    assert (found[0].given, found[0].likely) == (0, 1)


@given(st.integers(0, 1000), st.integers(2, 5))
def test_only_what_the_network_names_otherwise_is_suspected(seed, classes):
    draw = np.random.default_rng(seed)
    p, labels = draw.dirichlet(np.ones(classes), 30), draw.integers(0, classes, 30)
    found = suspects(p, labels)
    assert all(s.likely == p[s.index].argmax() != labels[s.index] for s in found)
    assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)


def test_few_are_suspected_where_no_label_was_changed():
    pictures, labels = load_digits(return_X_y=True)
    model = LogisticRegression(C=0.01, max_iter=300)
    p = cross_val_predict(model, pictures / 4, labels, cv=3, method="predict_proba")
    mistakes = (p.argmax(axis=1) != labels).sum()
    assert len(suspects(p, labels)) < mistakes / 5


def test_a_class_without_pictures_is_never_likely():
    p = np.array([[0.3, 0.1, 0.6], [0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])
    assert suspects(p, np.array([0, 0, 1])) == []


def test_clean_labels_give_no_suspects():
    assert suspects(np.eye(3)[[0, 1, 2]] * 0.9 + 0.1 / 3, np.array([0, 1, 2])) == []
