"""The commands that run arms, one file each, and what only they share."""
