"""The tokenizer of T5: from a prompt to numbers, by the likeliest pieces.

A tokenizer is a dict: vocab, {piece: id}; scores, {piece: log-probability}; rare, that of a letter that is no piece;
longest, the letters of the longest piece; clean, steps of `cleaned`; apart, of `parts`; special, {text: id} of what is
a token as it stands; end, pad and unknown, ids; length, of a sequence.

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
    """A text after its normalisation.

    text: str. steps: tuples, a kind and what it needs, as `tokenizer.json` has them: ("Precompiled", trie, texts) for a
    table of replacements; ("Strip", left, right); ("Replace", pattern, text); or a Unicode form, such as ("NFKC",).
    Returns a str.
    """
    for kind, *how in steps:
        if kind == "Precompiled":
            text = "".join(_replaced(sign, *how) for sign in _signs(text))
        elif kind == "Strip":
            left, right = (f"(?:{SPACES.pattern})" if there else "(?:)" for there in how)
            text = re.sub(f"^{left}?|{right}?$", "", text)
        elif kind == "Replace":
            text = re.sub(how[0], lambda _: how[1], text)
        else:
            text = unicodedata.normalize(kind, text)
    return text


def parts(text, apart):
    """The words of a text, each with the mark of its space before it; also where the text begins with none.

    text: str. apart: bool, whether all white space parts words, so that a second one in a row leaves nothing.
    Returns a list of str.
    """
    marked = [word.replace(" ", MARK) for word in (SPACES.split(text) if apart else [text]) if word]
    return [part for word in marked for part in re.findall(f"{MARK}[^{MARK}]*", MARK * (word[0] != MARK) + word)]


def likeliest(word, tokenizer):
    """The pieces of a word whose probabilities have the largest product, [Unigram] section 3.2, by dynamic programming:

        best_j = max_i best_i + log p(word[i:j])

    word: str. tokenizer: dict.
    Returns a list of str, in which letters next to each other that are no pieces stand together.
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
    """What a reader takes for one sign: a letter with its marks; carriage return and line feed."""
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
    """A sign after the table: as a whole where that is short, else letter by letter."""
    whole = _found(sign, trie, texts) if len(sign.encode()) < 6 else None
    if whole is not None or len(sign) == 1:
        return sign if whole is None else whole
    return "".join(_replaced(c, trie, texts) for c in sign)


def _found(sign, trie, texts):
    """The text of the first key that a sign begins with, or None. trie: a double array of ints, in which a node's byte
    is in the bits 0 to 7, 8 says that a key ends there, 9 that the way on counts in 256s, and the others hold it.
    texts: bytes, a 0 after each."""
    at, node = 0, int(trie[0])
    for byte in sign.encode():
        at ^= _way(node) ^ byte
        node = int(trie[at])
        if node & 0x800000FF != byte:
            return None
        if node & 0x100:
            start = int(trie[at ^ _way(node)]) & 0x7FFFFFFF
            return texts[start:texts.index(0, start)].decode()
    return None


def _way(node):
    return node >> 10 << (node >> 6 & 8)
