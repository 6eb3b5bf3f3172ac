"""Trust rules, one file each: how far to believe the rewards of a group or a sample.

`bpgo.py` is BPGO itself (arXiv 2511.18919), made of the pure files `prior.py`, `ras.py`, `crt.py`.
Importing a rule's file does not import torch, so settings can be checked without it.
"""
