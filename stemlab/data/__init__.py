"""Data sets, split once and for all into parts that train, that choose, and that only report."""
