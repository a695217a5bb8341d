"""The ops of minild.ops, fast: the same contracts, held to the textbook by tests.

table.py says which implementations there are and when each serves; calls.py calls them; choice.py puts the textbook or
the reader's own in their place. cpu/ and cuda/ hold them; memory.py and cores.py are what they share.
"""

from minild.engine.calls import implementation, run
from minild.engine.choice import current, using
from minild.engine.memory import inference

__all__ = ["current", "implementation", "inference", "run", "using"]
