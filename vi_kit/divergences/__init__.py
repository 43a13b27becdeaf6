"""Divergences between distributions: closed forms."""

from vi_kit.divergences._kl import kl_divergence as kl_divergence
