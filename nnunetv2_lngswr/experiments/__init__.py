"""What trains, attacks and compares: the benchmarks, the paper's data sets, the demo."""
