"""Fixtures of the shipped configuration."""

from shipped_config import folder, values

__all__ = ["folder", "values"]
