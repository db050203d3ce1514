"""The demo: the whole of linewatch at work on one machine, counted and drawn."""

from jobs.demo.run import run_demo
from jobs.demo.stage import DemoOptions

__all__ = ["DemoOptions", "run_demo"]
