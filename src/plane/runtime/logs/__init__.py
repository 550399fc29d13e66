"""The output of backends: captured, bounded, and stored in files."""
