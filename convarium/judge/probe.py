"""How well frozen features tell classes apart: a linear classifier on them, judged on pictures it has not seen."""

from __future__ import annotations

import numpy as np

from convarium.errors import DataError


def out_of_fold(features: np.ndarray, labels: np.ndarray, folds: int = 5, seed: int = 0) -> np.ndarray:
    """Whether each picture is named rightly by a logistic regression that was fitted without it.

    Args:
        features: (N, D), one row a picture.
        labels: (N,), class indices.
        folds: parts; each is judged by a regression on the others. Fewer where a class has fewer pictures.
        seed: of the parts, which are stratified.

    Returns:
        bool (N,).

    Raises:
        DataError: fewer than two classes, or a class with a single picture.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < 2:
        raise DataError(
            f"{len(counts)} classes, the smallest of {counts.min() if len(counts) else 0} pictures; a probe needs at "
            "least 2 classes of 2 pictures"
        )
    parts = StratifiedKFold(min(folds, int(counts.min())), shuffle=True, random_state=seed)
    # A weak pull (C below 1) suits features of many more dimensions than there are pictures.
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200, tol=1e-3))
    return cross_val_predict(classifier, features, labels, cv=parts) == labels
