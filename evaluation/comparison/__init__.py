"""Several evaluations side by side, paired by case: reading, testing, writing."""
