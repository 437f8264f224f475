"""How good a classifier is, how surely that is known, and the report that shows it."""

from __future__ import annotations

from convarium.judge.intervals import Proportion
from convarium.judge.metrics import ClassScore, Metrics, measure

__all__ = ["ClassScore", "Metrics", "Proportion", "measure"]
