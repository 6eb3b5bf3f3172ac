"""What this machine can run, and what is missing. Asks no network, imports no torch."""
