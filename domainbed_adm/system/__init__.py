"""The terminal, the disk, the machine: what every other room builds on."""
