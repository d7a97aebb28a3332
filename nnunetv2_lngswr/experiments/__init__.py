"""What trains, attacks and compares: the benchmarks, the paper's protocol, the demo."""
