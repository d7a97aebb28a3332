"""Robustness cards: what a model's evaluations found, to travel with it and to be ranked by."""
