// my-plugin: never answers with the token whose id the key `never` of the request, or of the
// plugin's table, names. Freestanding C: the canonical ABI of logits-processor.wit by hand.

typedef unsigned char u8;
typedef unsigned int u32;
typedef long long s64;

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#define EXPORT(name) __attribute__((export_name("jackfield:plugin/logits-processor@0.0.0#" name)))
#define SETTINGS "jackfield:plugin/settings@0.0.0"

// option<value>: is there one, which case, its payload.
typedef struct {
  u8 is_some;
  u8 pad[7];
  u8 tag;
  u8 pad2[7];
  s64 integer;
} OptionValue;

IMPORT("jackfield:plugin/rows@0.0.0", "set") void set(u32 row, u32 token, float logit);
IMPORT(SETTINGS, "[method]config.get")
void config_get(u32 self, const char *key, u32 len, OptionValue *out);
IMPORT(SETTINGS, "[resource-drop]config") void config_drop(u32 self);
IMPORT(SETTINGS, "[resource-drop]values") void values_drop(u32 self);

enum { BOOLEAN, INTEGER, NUMBER, TEXT, ITEMS, TABLE };
enum { ROWS_MAX = 4096, NONE = -1 };

static s64 standard = NONE;     // the token that no request gets, unless it names its own
static u32 row_ids[ROWS_MAX];   // which rows there are
static s64 row_never[ROWS_MAX]; // the token that each does not get
static u32 num_rows;

// result<_, error>: 0, or 1 and a config-error of three strings.
typedef struct {
  u8 is_error;
  u8 pad[7];
  u8 tag;
  u8 pad2[7];
  const char *text[6];
} __attribute__((aligned(8))) Result;

static Result result;
#define TEXT_OF(literal) (literal), (const char *)(sizeof(literal) - 1)

static Result *ok(void) {
  result = (Result){0};
  return &result;
}

static Result *wrong(void) {
  result = (Result){1, {0}, 0, {0}, {TEXT_OF("never"), TEXT_OF("a token id"), TEXT_OF("another value")}};
  return &result;
}

// Memory for what the host passes in: given back as a whole after each call.
static u8 arena[1 << 20] __attribute__((aligned(16)));
static u32 used;

__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, u32 old_size, u32 align,
                                                                u32 size) {
  (void)old, (void)old_size;
  u32 start = (used + align - 1) & ~(align - 1);
  if (size > sizeof arena || start > sizeof arena - size) __builtin_trap();
  used = start + size;
  return arena + start;
}

// Reads the key `never`; what is borrowed has to be dropped before the call ends.
static int token(u32 config, s64 otherwise, s64 *out) {
  OptionValue value;
  config_get(config, "never", 5, &value);
  config_drop(config);
  used = 0;
  *out = otherwise;
  if (!value.is_some) return 1;
  if (value.tag == ITEMS) values_drop((u32)value.integer);
  if (value.tag == TABLE) config_drop((u32)value.integer);
  *out = value.integer;
  return value.tag == INTEGER && value.integer >= 0 && value.integer <= 0xFFFFFFFFLL;
}

static s64 *find(u32 id) {
  for (u32 i = 0; i < num_rows; i++)
    if (row_ids[i] == id) return &row_never[i];
  return 0;
}

static void put(u32 id, s64 never) {
  s64 *place = find(id);
  if (!place) {
    if (num_rows == ROWS_MAX) __builtin_trap();
    row_ids[num_rows] = id;
    place = &row_never[num_rows++];
  }
  *place = never;
}

EXPORT("create") Result *create(u32 config) {
  return token(config, NONE, &standard) ? ok() : wrong();
}

EXPORT("describe") u8 *describe(void) {
  static u8 properties[2] = {0 /* need: nothing */, 0 /* is-argmax-invariant */};
  return properties;
}

EXPORT("add") Result *add(u32 id, u32 params, const u32 *history, u32 len) {
  (void)history, (void)len;
  s64 never;
  if (!token(params, standard, &never)) return wrong();
  put(id, never);
  return ok();
}

// variant change: a case and two or three words.
typedef struct {
  u8 tag;
  u8 pad[3];
  u32 words[3];
} Change;

enum { ADVANCED, ROLLED_BACK, FORKED, REMOVED };

EXPORT("follow") Result *follow(const Change *changes, u32 len) {
  for (u32 i = 0; i < len; i++) {
    const u32 *words = changes[i].words;
    s64 *place = find(words[0]);
    if (changes[i].tag == FORKED) put(words[1], place ? *place : NONE);
    if (changes[i].tag == REMOVED && place) {
      u32 index = (u32)(place - row_never);
      row_ids[index] = row_ids[--num_rows];
      row_never[index] = row_never[num_rows];
    }
  }
  used = 0;
  return ok();
}

EXPORT("apply") Result *apply(const u32 *ids, u32 len, u32 vocab_size) {
  for (u32 row = 0; row < len; row++) {
    s64 *never = find(ids[row]);
    if (never && *never != NONE && *never < vocab_size) set(row, (u32)*never, -__builtin_inff());
  }
  used = 0;
  return ok();
}
