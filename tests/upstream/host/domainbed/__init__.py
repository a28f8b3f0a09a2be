"""A small host with the doors of DomainBed, for tests."""
