"""The ops on the host's cores: pieces that fit a cache, fewer passes, cheaper algorithms.

Each file's functions have the names and the contracts of minild.ops. Most are written for any array module, so that
they can stand in on a GPU where no kernel serves; minild.engine.table says where they do.
"""
