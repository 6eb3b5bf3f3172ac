"""Prompts: sets behind one interface, the formats of published ones, first frames."""
