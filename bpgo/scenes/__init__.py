"""The embedded world: captions, renderer, oracle, simulated annotators, and the models learned."""
