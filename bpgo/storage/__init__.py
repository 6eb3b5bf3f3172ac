"""Files: whole or absent, fetched at a pinned revision, clips as video."""
