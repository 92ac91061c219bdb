"""stemlab."""
