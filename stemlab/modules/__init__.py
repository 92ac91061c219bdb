"""Torch modules of our own that a layer's `build` makes. They know nothing of specs."""
