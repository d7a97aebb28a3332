"""Scores of anybody's segmentations against labels, without a model: `lngswr score`."""
