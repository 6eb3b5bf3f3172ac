"""Fixtures of the tiny pipelines."""

from pipeline_cases import case, folders, model
from wan_cases import first_frames, wan_folders

__all__ = ["case", "first_frames", "folders", "model", "wan_folders"]
