"""`linewatch bench`: how well and how fast linewatch does, beside what a user would take instead."""
