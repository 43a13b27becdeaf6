"""Targets: distributions to fit, bundled ones with known answers, and readers for those that others keep."""

from vi_kit.targets._make import make_target as make_target
