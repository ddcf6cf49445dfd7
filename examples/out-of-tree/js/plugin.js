// forbid: never answers with the token whose id the key `never` of the request, or of the
// plugin's table, names.

import { set } from "jackfield:plugin/rows@0.0.0";

// The token that no request gets, unless it names its own.
let standard;
// The token that each row does not get.
const never = new Map();

function token(config, otherwise) {
  const value = config.get("never");
  if (value === undefined) return otherwise;
  if (value.tag === "integer" && value.val >= 0n && value.val < 2n ** 32n) return Number(value.val);
  const key = [config.path(), "never"].filter((part) => part !== "").join(".");
  throw { tag: "config", val: { key, expected: "a token id", found: String(value.val) } };
}

export const logitsProcessor = {
  create(config) {
    standard = token(config, undefined);
  },

  describe() {
    return { need: "nothing", isArgmaxInvariant: false };
  },

  add(id, params, history) {
    never.set(id, token(params, standard));
  },

  follow(changes) {
    for (const { tag, val } of changes) {
      if (tag === "forked") never.set(val.child, never.get(val.parent));
      if (tag === "removed") never.delete(val);
    }
  },

  apply(ids, vocabSize) {
    ids.forEach((id, row) => {
      const masked = never.get(id);
      if (masked !== undefined && masked < vocabSize) set(row, masked, -Infinity);
    });
  },
};
