"""The same market with models only, to ask how often they should be trained.

"The same as last time" is left out of the candidates: nothing passes the gate against it for long, and this declaration asks about models.
"""

from dataclasses import replace

from system import system as declared

import noria as nr

system = replace(declared, name="elec2-models", candidates=[nr.Prior(), nr.Linear(trials=4)])
