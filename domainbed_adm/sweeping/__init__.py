"""Many runs: jobs, command launchers, named sweeps."""
