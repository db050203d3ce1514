"""Counts every image against its event, its mask or its dead letter: did exactly-once hold?"""
