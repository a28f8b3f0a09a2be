"""Helpers of the small host."""
