"""The embedded world of clips: moving shapes, their captions, oracle, annotators and models."""
