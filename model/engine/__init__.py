"""How a mixed batch is scored on a device, and which runtime computes it."""
