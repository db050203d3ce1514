"""Decides what becomes of what people say."""
