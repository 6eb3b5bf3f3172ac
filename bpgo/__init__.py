"""BPGO: which reinforcement learning to trust when a reward model cannot be trusted."""

from bpgo.run import torchvision_repair

__version__ = "0.1.0"

torchvision_repair.install()
