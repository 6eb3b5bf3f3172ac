"""Policies: adapters over diffusers pipelines.

A new model is one file here (a subclass of `bpgo.models.pipeline.PipelinePolicy` that says how it
differs, exported as `MODEL`), one line in `bpgo.registry.MODELS` and one file in `config/models/`.
A line in `tests/contract/test_models.py` gives it to the contract's tests.
"""
