"""Measures training settings before any arm is compared with them."""
