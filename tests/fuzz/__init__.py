"""Fuzzing of minild's readers: what strangers' files may hold, and what must come of it.

An input is decided by the name of its reader, a seed and its number alone, so that any can be made again. It is either
refused by a minild.errors.UserError or accepted. Everything else is a crash: another exception, more than two seconds
of processor time, more memory than the reader states, a file written or removed outside its folder, a file read
beside it, a program started, a connection made, a pickle opened.
"""
