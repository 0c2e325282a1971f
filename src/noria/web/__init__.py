"""The report: one HTML page that says how the system does and on what evidence."""

from noria.web.report import report

__all__ = ["report"]
