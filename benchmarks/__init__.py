"""Costs, measured as ratios against named baselines; results lie beside, named by device and version."""
