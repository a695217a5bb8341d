"""Byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909; on bytes, Radford et al. 2019).

A word is the symbols of its UTF-8 bytes, and neighbouring symbols are merged in the order in which training learnt the
merges. The last symbol of a word carries `</w>`, so "shape" and the start of "shapes" differ.
"""

from collections import Counter, defaultdict
from heapq import heapify, heappop, heappush
from itertools import pairwise

END = "</w>"


def byte_symbols():
    """{byte: a printable character that stands for it}, in CLIP's order.

    The printable bytes of Latin-1 stand for themselves; the other 68 take the characters from U+0100 on, so that no
    symbol is white space and merges.txt can be split at blanks.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


SYMBOLS = byte_symbols()
BYTES = {symbol: byte for byte, symbol in SYMBOLS.items()}


def word_symbols(word):
    """A word -> the tuple of its bytes' symbols, the last with </w>."""
    symbols = [SYMBOLS[byte] for byte in word.encode("utf-8", errors="replace")]
    return (*symbols[:-1], symbols[-1] + END)


def merge_pair(symbols, pair):
    """The symbols with each occurrence of the pair made one symbol, from left to right."""
    merged, i = [], 0
    while i < len(symbols):
        here = symbols[i : i + 2] == pair
        merged.append("".join(pair) if here else symbols[i])
        i += 2 if here else 1
    return tuple(merged)


def learn_merges(counts, limit):
    """The at most `limit` merges of a corpus {word: occurrences}, in the order learnt: a list of pairs of symbols.

    Each step merges the most frequent pair of neighbours, of equals the first in string order, and the steps end early
    when every word is one symbol (Sennrich et al. 2016, algorithm 1). Counts are kept up to date by recounting only the
    words that hold the merged pair.
    """
    words = [(word_symbols(word), count) for word, count in counts.items()]
    frequency, where = Counter(), defaultdict(set)

    def tally(i, sign):
        symbols, count = words[i]
        for pair in pairwise(symbols):
            frequency[pair] += sign * count
            where[pair].add(i)
            if not frequency[pair]:
                del frequency[pair]

    for i in range(len(words)):
        tally(i, 1)
    merges = []
    while frequency and len(merges) < limit:
        best = min(frequency, key=lambda pair: (-frequency[pair], pair))
        merges.append(best)
        for i in sorted(where[best]):
            tally(i, -1)
            words[i] = (merge_pair(words[i][0], best), words[i][1])
            tally(i, 1)
    return merges


def merged(symbols, rank):
    """The symbols after merging the pair of lowest rank, the first of its kind, until none has a rank: a tuple.

    rank: {pair: its place in the order learnt}. In n log n steps, for a word may be a page of letters without a blank.
    """
    symbols, end = list(symbols), len(symbols)
    before, after = list(range(-1, end - 1)), list(range(1, end + 1))  # the places of the neighbours that are left
    waiting = [(rank[pair], i) for i, pair in enumerate(pairwise(symbols)) if pair in rank]
    heapify(waiting)
    while waiting:
        place, i = heappop(waiting)
        j = after[i]
        if j == end or rank.get((symbols[i], symbols[j])) != place:  # one of the two was merged since
            continue
        symbols[i], symbols[j], after[i] = symbols[i] + symbols[j], None, after[j]
        if after[j] < end:
            before[after[j]] = i
        for left, right in ((before[i], i), (i, after[i])):
            if left >= 0 and right < end and (pair := (symbols[left], symbols[right])) in rank:
                heappush(waiting, (rank[pair], left))
    return tuple(symbol for symbol in symbols if symbol is not None)
