"""The cluster's certificate."""
