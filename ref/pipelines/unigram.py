"""The tokenizer of T5: from a prompt to numbers, by the likeliest pieces.

A tokenizer is a dict: vocab, {piece: id}; scores, {piece: log-probability}; rare, the score of a letter that is no
piece; longest, the number of letters of the longest piece; clean, the steps of `cleaned`; apart, as in `parts`;
special, {text: id} of what is a token as it stands; end, pad and unknown, ids; length, of a sequence.

Papers
    [Unigram]  Kudo, "Subword Regularization: Improving Neural Network Translation Models with Multiple Subword
               Candidates", 2018
"""
import itertools
import re
import unicodedata

from ref.pipelines.tokenizer import SPACES

MARK = "\u2581"  # stands for the space before a word
JOINERS = "\u200c\u200d"  # no marks, but as these part of the sign before


def cleaned(text, steps):
    """The text normalised, one step after another.

    text: str. steps: tuples, the kind of a step in `tokenizer.json` and its settings: ("Precompiled", trie, texts), a
    table of replacements; ("Strip", left, right), bools; ("Replace", pattern, text); or a Unicode form, ("NFKC",).
    Returns a str.
    """
    for kind, *how in steps:
        if kind == "Precompiled":
            text = "".join(_replaced(sign, *how) for sign in _signs(text))
        elif kind == "Strip":
            ends = zip((f"^{SPACES.pattern}", f"{SPACES.pattern}$"), how)
            text = re.sub("|".join(end for end, there in ends if there), "", text)
        elif kind == "Replace":
            text = re.sub(how[0], lambda _: how[1], text)
        else:
            text = unicodedata.normalize(kind, text)
    return text


def parts(text, apart):
    """The words of a text, each after the mark of a space, the first one too. A space that follows another is a mark
    alone, or nothing where words are taken apart first.

    text: str. apart: bool, whether words are taken apart at white space first.
    Returns a list of str.
    """
    marked = [word.replace(" ", MARK) for word in (SPACES.split(text) if apart else [text]) if word]
    return [part for word in marked for part in re.findall(f"{MARK}[^{MARK}]*", MARK * (word[0] != MARK) + word)]


def likeliest(word, tokenizer):
    """The pieces of a word whose probabilities have the largest product, [Unigram] section 3.2, by dynamic programming:

        best_j = max_i best_i + log p(word[i:j])

    A letter that is no piece has the score `rare`, and letters of this kind in a row are one unknown piece.

    word: str. tokenizer: dict.
    Returns a list of str.
    """
    scores, rare = tokenizer["scores"], tokenizer["rare"]
    best, begin = [0.0] + [-float("inf")] * len(word), [0] * (len(word) + 1)
    for i in range(len(word)):
        for j in range(i + 1, min(i + tokenizer["longest"], len(word)) + 1):
            score = scores.get(word[i:j], rare if j == i + 1 else None)
            if score is not None and best[i] + score > best[j]:
                best[j], begin[j] = best[i] + score, i
    # Back from the end
    pieces, j = [], len(word)
    while j > 0:
        pieces.insert(0, word[begin[j]:j])
        j = begin[j]
    runs = ((known, list(run)) for known, run in itertools.groupby(pieces, lambda piece: piece in scores))
    return [piece for known, run in runs for piece in (run if known else ["".join(run)])]


def piece_ids(text, tokenizer):
    """The ids of a text, without the end: special texts as they stand, the words between them by `likeliest`.

    text: str. tokenizer: dict.
    Returns a list of ints.
    """
    special, ids = sorted(tokenizer["special"], key=len, reverse=True), []
    for part in re.split(f"({'|'.join(map(re.escape, special))})", text) if special else [text]:
        if part in tokenizer["special"]:
            ids.append(tokenizer["special"][part])
        else:
            ids += [tokenizer["vocab"].get(piece, tokenizer["unknown"])
                    for word in parts(cleaned(part, tokenizer["clean"]), tokenizer["apart"])
                    for piece in likeliest(word, tokenizer)]
    return ids


def _signs(text):
    """The text as a list of signs: a letter with its marks is one, and so is a carriage return with its line feed."""
    signs, base = [], False
    for c in text:
        kind = unicodedata.category(c)
        if signs and (base and (kind[0] == "M" or c in JOINERS) or signs[-1] == "\r" and c == "\n"):
            signs[-1] += c
        else:
            signs.append(c)
            base = kind not in ("Cc", "Cf", "Zl", "Zp")
    return signs


def _replaced(sign, trie, texts):
    """A sign by the table: as a whole where it is short and begins with a key, else letter by letter."""
    whole = _found(sign, trie, texts) if len(sign.encode()) < 6 else None
    if whole is not None or len(sign) == 1:
        return sign if whole is None else whole
    return "".join(_replaced(c, trie, texts) for c in sign)


def _found(sign, trie, texts):
    """The text of the shortest key that a sign begins with, or None. trie: a double array: of each node the bits 0 to 7
    are its byte, bit 8 is set where a key ends, and the others are the offset of the next nodes, in 256s where bit 9 is
    set. texts: bytes, a 0 after each."""
    at, node = 0, int(trie[0])
    for byte in sign.encode():
        at ^= _offset(node) ^ byte
        node = int(trie[at])
        if node & 0x800000FF != byte:
            return None
        if node & 0x100:
            start = int(trie[at ^ _offset(node)]) & 0x7FFFFFFF
            return texts[start:texts.index(0, start)].decode()
    return None


def _offset(node):
    return node >> 10 << (node >> 6 & 8)
