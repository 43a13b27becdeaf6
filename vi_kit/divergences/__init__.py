"""Divergences between distributions: closed forms, quadrature, bounds and Monte Carlo."""

from vi_kit.divergences import distributions as distributions
from vi_kit.divergences._bounds import Bounds as Bounds
from vi_kit.divergences._bounds import kl_bounds as kl_bounds
from vi_kit.divergences._divergence import divergence as divergence
from vi_kit.divergences._kinds import Alpha as Alpha
from vi_kit.divergences._kinds import Bhattacharyya as Bhattacharyya
from vi_kit.divergences._kinds import ChiSquare as ChiSquare
from vi_kit.divergences._kinds import FDivergence as FDivergence
from vi_kit.divergences._kinds import Hellinger as Hellinger
from vi_kit.divergences._kinds import Jeffreys as Jeffreys
from vi_kit.divergences._kinds import JensenShannon as JensenShannon
from vi_kit.divergences._kinds import Kind as Kind
from vi_kit.divergences._kinds import KullbackLeibler as KullbackLeibler
from vi_kit.divergences._kinds import Renyi as Renyi
from vi_kit.divergences._kinds import ReverseKullbackLeibler as ReverseKullbackLeibler
from vi_kit.divergences._kinds import TotalVariation as TotalVariation
from vi_kit.divergences._kl import kl_divergence as kl_divergence
from vi_kit.divergences._listing import Table as Table
from vi_kit.divergences._listing import table as table
from vi_kit.divergences._quadrature import quadrature_kl as quadrature_kl
from vi_kit.divergences._registered import register_kl as register_kl
from vi_kit.divergences._wasserstein import wasserstein2 as wasserstein2
from vi_kit.divergences._wasserstein import wasserstein2_squared as wasserstein2_squared
