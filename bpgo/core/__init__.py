"""What every arm shares: kernels, advantages, losses, rollout, update, trainer."""
