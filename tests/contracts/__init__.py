"""What every implementation of a seam must pass, run over all that are registered."""
