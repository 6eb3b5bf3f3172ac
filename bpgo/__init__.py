"""BPGO: which reinforcement learning to trust when a reward model cannot be trusted."""

from bpgo.run import products, torchvision_repair

__version__ = "0.1.0"

products.round_alike()
torchvision_repair.install()
