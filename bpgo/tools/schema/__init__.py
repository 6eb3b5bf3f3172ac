"""The JSON schemas of the files that people write, and the page of all keys."""
