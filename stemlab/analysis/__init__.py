"""Numbers from records: numpy and pandas only, never torch and never a figure."""
