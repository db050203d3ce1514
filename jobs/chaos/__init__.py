"""Faults on purpose: the real servers, a Ray cluster of several nodes, and the count afterwards."""
