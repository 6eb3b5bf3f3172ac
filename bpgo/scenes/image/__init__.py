"""The embedded world of images: its renderer, oracle, policy, rewards and prompts."""
