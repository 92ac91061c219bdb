"""Study files that ship with stemlab."""
