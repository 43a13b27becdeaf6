"""Diagnostics: how far a fit can be believed."""

from vi_kit.diagnostics._calibration import Calibration as Calibration
from vi_kit.diagnostics._calibration import simulation_based_calibration as simulation_based_calibration
from vi_kit.diagnostics._gradient_variance import EstimatorNoise as EstimatorNoise
from vi_kit.diagnostics._gradient_variance import GradientVariance as GradientVariance
from vi_kit.diagnostics._gradient_variance import gradient_variance as gradient_variance
from vi_kit.diagnostics._report import Coordinate as Coordinate
from vi_kit.diagnostics._report import Report as Report
from vi_kit.diagnostics._report import diagnose as diagnose
