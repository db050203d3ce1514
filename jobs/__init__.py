"""What starts, works and ends: ingest, fit, evaluate, promote, retrain, replay, demo; and the command line."""
