"""`plane db`, also installed as `plane-db`: commands for operators on the database itself, without a controller."""
