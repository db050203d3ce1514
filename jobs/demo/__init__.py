"""The demo: the whole of linewatch at work on one machine, counted and drawn."""

from jobs.demo.run import DemoOptions, run_demo

__all__ = ["DemoOptions", "run_demo"]
