"""The build API over the solver."""
