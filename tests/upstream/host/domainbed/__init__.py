"""A small host with the names of DomainBed that we use, for tests."""
