"""What a command works with: settings and store, a Ray, a screen that tells how far it is."""
