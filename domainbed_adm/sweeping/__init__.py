"""Many runs: jobs, command launchers, launches and their failures, named sweeps."""
