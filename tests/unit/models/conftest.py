"""Fixtures of the tiny pipelines."""

from pipeline_cases import case, folders, model

__all__ = ["case", "folders", "model"]
