"""What an experiment will cost, before anything starts. No torch is needed."""
