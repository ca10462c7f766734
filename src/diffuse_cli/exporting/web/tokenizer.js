// Prompts → tokens, by the byte-level byte-pair encoding of the model's tokenizer.json, as the library tokenizers does.

"use strict";

const TEXT_LENGTH = 77, END = 1;
const SPACE = "[\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";       // Unicode's white space
const SPACES = new RegExp(`${SPACE}+`, "gu");
const REMOVED = /[#®•©™&@·º½¾¿¡§~)(\][}{|\\/*]+/gu;                     // what the pipelines of diffusers remove, too
const WORDS = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;      // those of GPT-2
const SPECIAL = /(<pad>|<\/s>|<unk>)/;

/** The letter that stands for a byte: itself if it can be printed, else one of those from 256 on. */
const LETTERS = (() => {
  let next = 256;
  return Array.from({length: 256}, (_, byte) => {
    const printable = byte > 32 && byte < 127 || byte > 160 && byte !== 173;
    return String.fromCharCode(printable ? byte : next++);
  });
})();

class Tokenizer {
  /** vocab: token → id. merges: pairs of tokens, the first pair is merged first. */
  constructor({vocab, merges}) {
    this.vocabulary = new Map(Object.entries(vocab));
    this.ranks = new Map(merges.map((pair, rank) => [pair.join(" "), rank]));
  }

  /** A prompt → its 77 tokens: those of the prompt, END, then PAD. A longer prompt is cut, but keeps END. */
  encode(prompt) {
    const ids = prompt.replace(/\p{Surrogate}/gu, "?").split(SPECIAL).flatMap((part, k) =>
      k % 2 ? [this.vocabulary.get(part)] : this.plain(part)).slice(0, TEXT_LENGTH - 1);
    return [...ids, END, ...Array(TEXT_LENGTH - 1 - ids.length).fill(0)];
  }

  /** A text without special tokens → ids. */
  plain(text) {
    const lower = Array.from(text.normalize("NFKC"), letter => letter.toLowerCase()).join("");
    const words = lower.replace(REMOVED, " ").replace(SPACES, " ").replace(/^ | $/g, "");
    return words ? ` ${words}`.match(WORDS).flatMap(word => this.word(word)) : [];
  }

  /** A word → ids: its bytes, of which the pair that comes first in the list is merged, again and again. */
  word(text) {
    let tokens = Array.from(new TextEncoder().encode(text), byte => LETTERS[byte])
      .filter(letter => this.vocabulary.has(letter));
    for (;;) {
      const ranks = tokens.slice(1).map((token, k) => this.ranks.get(`${tokens[k]} ${token}`) ?? Infinity);
      const best = Math.min(...ranks), place = ranks.indexOf(best);
      if (!Number.isFinite(best)) return tokens.map(token => this.vocabulary.get(token));
      tokens.splice(place, 2, tokens[place] + tokens[place + 1]);
    }
  }
}
