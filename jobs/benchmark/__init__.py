"""The protocol: every category of a folder, several seeds, fixed budget, last step, nothing chosen on test images."""

from jobs.benchmark.layouts import Category, TestImage, categories
from jobs.benchmark.runs import Method, Plan, Result, run_plan

__all__ = ["Category", "Method", "Plan", "Result", "TestImage", "categories", "run_plan"]
