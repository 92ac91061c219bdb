"""Layers outside the core's vocabulary, known to specs through entry points as any other package's are."""
