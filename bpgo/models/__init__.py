"""Policies: adapters over diffusers models."""
