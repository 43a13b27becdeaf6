"""Diagnostics: how far a fit can be believed."""

from vi_kit.diagnostics._report import Coordinate as Coordinate
from vi_kit.diagnostics._report import Report as Report
from vi_kit.diagnostics._report import diagnose as diagnose
