"""Jobs without start-up: a server that has imported everything forks one process for each.

`folder` belongs to one run of Snakemake, `call` is the job's side, `server` and `worker` the other.
"""
