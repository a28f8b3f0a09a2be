"""Tests of fetching and unpacking datasets; no network but a server of their own."""
