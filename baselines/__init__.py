"""Published algorithms, one file each; every file states only how it differs."""
