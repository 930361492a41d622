"""The tokenizer of CLIP: from a prompt to numbers, by byte-pair encoding.

A tokenizer is a dict: vocab, {piece: id}; merges, {pair of pieces: rank}; special, {text: id} of what is a token as it
stands; added, the same of what is one in the text as `cleaned`; start, end, pad and unknown, ids; length, of a
sequence. The pieces are spelled in 256 letters that stand for
the bytes of UTF-8, and "</w>" ends a word.

Papers
    [BPE]    Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units", 2016
    [GPT-2]  Radford et al., "Language Models are Unsupervised Multitask Learners", 2019
"""
import re
import unicodedata

SHORT = re.compile(r"'(?:s|t|re|ve|m|ll|d)")  # "it's" is "it" and "'s"
WRITTEN = re.compile(r"<\|(start|end)oftext\|>")  # by hand, in capitals: no token
RUN = re.compile(r"L+|N|\.+")  # letters together, digits one by one, signs together
OTHERS = [byte for byte in range(256) if byte not in (*range(33, 127), *range(161, 173), *range(174, 256))]
# the letter of each byte, as in the code of [GPT-2]: itself where it prints, else one from U+0100 on
LETTERS = [chr(256 + OTHERS.index(byte)) if byte in OTHERS else chr(byte) for byte in range(256)]
SPACES = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")



def cleaned(text):
    """A text composed (NFC), in lower case, with one space for white space. text: str. Returns a str."""
    return "".join(c.lower() for c in SPACES.sub(" ", unicodedata.normalize("NFC", text)))


def words(text):
    """The words of a text that is `cleaned`: split into letters, single digits and signs; white space only separates.
    text: str. Returns a list of str."""
    kinds = "".join(" " if c == " " else kind if (kind := unicodedata.category(c)[0]) in "LN" else "." for c in text)
    found, i = [], 0
    while i < len(text):
        if whole := WRITTEN.match(text, i):
            found += ["<|", f"{whole[1]}oftext", "|>"]
        elif run := SHORT.match(text, i) or RUN.match(kinds, i):
            found.append(text[i:run.end()])
        i = whole.end() if whole else run.end() if run else i + 1
    return found


def merged(word, merges):
    """Byte-pair encoding, [BPE] algorithm 1: the pair of neighbours of the lowest rank becomes one piece, wherever it
    stands, until no pair has a rank.

    word: str. merges: {(piece, piece): rank}. Returns the pieces, a list of str.
    """
    pieces = [LETTERS[byte] for byte in word.encode()]
    pieces[-1] += "</w>"
    while len(pieces) > 1:
        pair = min(zip(pieces, pieces[1:]), key=lambda pair: merges.get(pair, len(merges)))
        if pair not in merges:
            break
        joined = []
        for piece in pieces:
            if joined and (joined[-1], piece) == pair:
                joined[-1] = joined[-1] + piece + " "  # a piece that was joined is not joined again in this round
            else:
                joined.append(piece)
        pieces = [piece.removesuffix(" ") for piece in joined]
    return pieces


def encoded(text, tokenizer):
    """The ids of a text, without start and end: special and added texts have their own, the words between them those
    of `merged`.

    text: str. tokenizer: dict. Returns a list of ints.
    """
    vocab, special, added, ids = tokenizer["vocab"], tokenizer["special"], tokenizer["added"], []
    for part in _parts(text, special):
        if part in special:
            ids.append(special[part])
            continue
        for piece in _parts(cleaned(part), added):
            ids += [added[piece]] if piece in added else [
                vocab.get(token, tokenizer["unknown"]) for word in words(piece)
                for token in merged(word, tokenizer["merges"])]
    return ids


def _parts(text, marks):
    """A text split at some texts, the longest first, which stay as parts of it."""
    longest = sorted(marks, key=len, reverse=True)
    return re.split(f"({'|'.join(map(re.escape, longest))})", text) if marks else [text]
