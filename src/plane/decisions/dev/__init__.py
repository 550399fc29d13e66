"""The cluster of `plane dev`."""
