"""The solver's side of a frontend: the gateway bridge, whoever calls it."""
