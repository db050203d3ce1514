"""The report of a run: a self-contained page and a contact sheet, made from the same rows."""

from jobs.report.page import write_page
from jobs.report.rows import InspectedImage, ProductSummary, RegionBox, Report
from jobs.report.sheet import write_contact_sheet

__all__ = ["InspectedImage", "ProductSummary", "RegionBox", "Report", "write_contact_sheet", "write_page"]
