"""Seeds from names."""

import hashlib


def seed_of(*names):
    digest = hashlib.md5(repr(names).encode()).hexdigest()
    return int(digest, 16) % 2**31
