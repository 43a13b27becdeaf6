"""Targets: distributions to fit, bundled ones with known answers, and readers for those that others keep."""

from vi_kit.targets._from_draws import from_draws as from_draws
from vi_kit.targets._from_numpyro import from_numpyro as from_numpyro
from vi_kit.targets._make import make_target as make_target
from vi_kit.targets._minibatch import minibatch as minibatch
from vi_kit.targets._posteriordb import posteriordb as posteriordb
from vi_kit.targets._posteriordb import posteriordb_names as posteriordb_names
from vi_kit.targets._posteriordb import posteriordb_reference as posteriordb_reference
from vi_kit.targets._reference import Reference as Reference
from vi_kit.targets._reference import read_reference as read_reference
from vi_kit.targets._reference import write_reference as write_reference
from vi_kit.targets._registry import Info as Info
from vi_kit.targets._registry import info as info
from vi_kit.targets._registry import load as load
from vi_kit.targets._registry import names as names
from vi_kit.targets._registry import reference as reference
from vi_kit.targets._sampling_targets import sampling_target as sampling_target
from vi_kit.targets._sampling_targets import sampling_target_names as sampling_target_names
from vi_kit.targets._sampling_targets import sampling_target_reference as sampling_target_reference
