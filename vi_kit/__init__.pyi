from vi_kit import algorithms as algorithms
from vi_kit import diagnostics as diagnostics
from vi_kit import divergences as divergences
from vi_kit import estimators as estimators
from vi_kit import families as families
from vi_kit import kl as kl
from vi_kit import objectives as objectives
from vi_kit import support as support
from vi_kit import targets as targets
from vi_kit._check import check as check
from vi_kit._fit import fit as fit
from vi_kit._optimize import optimize as optimize
from vi_kit._posterior import Posterior as Posterior
from vi_kit._posterior import load as load
from vi_kit._types import Estimate as Estimate
from vi_kit._types import Fit as Fit
from vi_kit._types import Target as Target
from vi_kit.diagnostics import Report as Report
from vi_kit.diagnostics import diagnose as diagnose
from vi_kit.divergences import Bounds as Bounds
from vi_kit.divergences import divergence as divergence
from vi_kit.divergences import kl_bounds as kl_bounds
from vi_kit.divergences import kl_divergence as kl_divergence
from vi_kit.divergences import quadrature_kl as quadrature_kl
from vi_kit.divergences import register_kl as register_kl
from vi_kit.targets import make_target as make_target

__version__: str
