"""Business: what the decisions were worth, by release and against doing nothing, always acting and knowing everything."""

from noria.business.account import account
from noria.business.summary import summary

__all__ = ["account", "summary"]
