"""The output of backends: captured, bounded, and kept in files."""
