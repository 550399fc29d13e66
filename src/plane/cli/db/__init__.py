"""`plane db`, also installed as `plane-db`: what an operator does in the database itself, without a controller."""
