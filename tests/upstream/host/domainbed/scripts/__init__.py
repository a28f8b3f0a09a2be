"""Programs of the small host."""
