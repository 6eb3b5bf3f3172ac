"""Sample trained policies and score the samples."""
