"""BPGO: which reinforcement learning to trust when a reward model cannot be trusted."""

__version__ = "0.1.0"
