"""Slow twins of every formula: float64, plain loops, written from the equations, sharing no code with the package."""
