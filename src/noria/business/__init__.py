"""Business: what the decisions were worth, by version, variant, slice and month, net of costs, and whether the ML metric still means money."""

from noria.business.account import account
from noria.business.link import linked, state
from noria.business.net import Net
from noria.business.summary import summary
from noria.business.worth import Worth, worth

__all__ = ["Net", "Worth", "account", "linked", "state", "summary", "worth"]
