"""Difficulty, curriculum and flatness as pure PyTorch: no files, no flags, no DomainBed."""
