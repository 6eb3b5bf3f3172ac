"""What keeps a run alive: machine, processes, memory, checkpoints, progress."""
