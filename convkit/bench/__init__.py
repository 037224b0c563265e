"""The benchmark: times of the kit relative to those of baselines, measured in one run."""
