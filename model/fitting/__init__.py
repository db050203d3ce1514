"""How a student is fitted to good images, held out, corrupted, checkpointed and quantised."""
