"""Which vertex runs when."""
