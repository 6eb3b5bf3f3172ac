"""What the published rewards share; nothing here is a reward that a configuration can name."""
