"""Studies: a comparison of methods that is stated before it runs, and ends in a verdict by a stated rule."""
