"""The benchmark: ratios of our time and that of baselines, measured in one run."""
