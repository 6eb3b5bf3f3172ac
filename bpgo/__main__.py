"""`python -m bpgo`."""

from bpgo.cli import main

main()
