"""BPGO itself (arXiv 2511.18919): prior, RAS, CRT and the objective, as pure functions."""
