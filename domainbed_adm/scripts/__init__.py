"""The command line: flags only, no logic."""
