"""A thin ctypes binding of llama.cpp's C interface, as found in the xllamacpp wheel: tokens in, raw logits out.

No server, no sampler chain: what comes back is what the model's last matrix product wrote.
Offsets in llama_context_params belong to xllamacpp 2026.10.11549; the constructor checks the defaults it expects there.
"""

import ctypes as C
from pathlib import Path

import numpy as np
import xllamacpp

PACKAGE = "xllamacpp 2026.10.11549"
SETTINGS = "CPU, 2 threads, flash attention off, one ubatch of up to 2048 tokens, raw logits before any sampler"

# Byte offset in llama_context_params, and the default that has to be there.
N_CTX, N_BATCH, N_UBATCH, N_SEQ_MAX = (0, 512), (4, 2048), (8, 512), (12, 1)
N_THREADS, N_THREADS_BATCH = (28, 4), (32, 4)
FLASH_ATTN_TYPE, TYPE_K, TYPE_V = (52, -1), (104, 1), (108, 1)
FLASH_ATTN_DISABLED = 0  # -1: auto
F32, F16 = 0, 1


class Params(C.Structure):
    """Room for either parameter struct; both are last in their argument lists, so extra room does no harm."""

    _fields_ = [("bytes", C.c_uint8 * 256)]

    def field(self, offset):
        return C.c_int32.from_buffer(self, offset)


class Batch(C.Structure):
    _fields_ = [
        ("n_tokens", C.c_int32),
        ("token", C.POINTER(C.c_int32)),
        ("embd", C.POINTER(C.c_float)),
        ("pos", C.POINTER(C.c_int32)),
        ("n_seq_id", C.POINTER(C.c_int32)),
        ("seq_id", C.POINTER(C.POINTER(C.c_int32))),
        ("logits", C.POINTER(C.c_int8)),
    ]


LOG_CALLBACK = C.CFUNCTYPE(None, C.c_int, C.c_char_p, C.c_void_p)
SILENT = LOG_CALLBACK(lambda level, text, data: None)


def load_library():
    lib = C.CDLL(str(next(Path(xllamacpp.__file__).parent.glob("xllamacpp*.so"))))
    handle = C.c_void_p
    for name, result, arguments in (
        ("llama_model_default_params", Params, []),
        ("llama_context_default_params", Params, []),
        ("llama_model_load_from_file", handle, [C.c_char_p, Params]),
        ("llama_init_from_model", handle, [handle, Params]),
        ("llama_model_get_vocab", handle, [handle]),
        ("llama_model_chat_template", C.c_char_p, [handle, C.c_char_p]),
        ("llama_vocab_n_tokens", C.c_int32, [handle]),
        ("llama_vocab_bos", C.c_int32, [handle]),
        ("llama_vocab_eos", C.c_int32, [handle]),
        ("llama_vocab_get_add_bos", C.c_bool, [handle]),
        ("llama_vocab_get_add_eos", C.c_bool, [handle]),
        ("llama_vocab_is_eog", C.c_bool, [handle, C.c_int32]),
        ("llama_tokenize", C.c_int32,
         [handle, C.c_char_p, C.c_int32, C.POINTER(C.c_int32), C.c_int32, C.c_bool, C.c_bool]),
        ("llama_batch_init", Batch, [C.c_int32, C.c_int32, C.c_int32]),
        ("llama_decode", C.c_int32, [handle, Batch]),
        ("llama_get_logits_ith", C.POINTER(C.c_float), [handle, C.c_int32]),
        ("llama_get_memory", handle, [handle]),
        ("llama_memory_clear", None, [handle, C.c_bool]),
        ("llama_log_set", None, [LOG_CALLBACK, handle]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    lib.llama_log_set(SILENT, None)
    lib.llama_backend_init()
    return lib


class Llama:
    def __init__(self, path, context_size=2048, cache_type=F16):
        self.lib = lib = load_library()
        self.model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        assert self.model, f"cannot load {path}"
        params = lib.llama_context_default_params()
        for (offset, default), value in (
            (N_CTX, context_size),
            (N_BATCH, context_size),
            (N_UBATCH, context_size),
            (N_SEQ_MAX, 1),
            (N_THREADS, 2),
            (N_THREADS_BATCH, 2),
            (FLASH_ATTN_TYPE, FLASH_ATTN_DISABLED),
            (TYPE_K, cache_type),
            (TYPE_V, cache_type),
        ):
            assert params.field(offset).value == default, f"unknown llama_context_params: offset {offset}"
            params.field(offset).value = value
        self.context = lib.llama_init_from_model(self.model, params)
        assert self.context, "cannot make a context"
        self.vocab = lib.llama_model_get_vocab(self.model)
        self.vocab_size = lib.llama_vocab_n_tokens(self.vocab)
        self.bos, self.eos = lib.llama_vocab_bos(self.vocab), lib.llama_vocab_eos(self.vocab)
        self.add_bos, self.add_eos = lib.llama_vocab_get_add_bos(self.vocab), lib.llama_vocab_get_add_eos(self.vocab)
        self.batch = lib.llama_batch_init(context_size, 0, 1)
        self.position = 0

    def tokenize(self, text, add_special, parse_special):
        raw = text.encode()
        room = len(raw) + 16
        ids = (C.c_int32 * room)()
        count = self.lib.llama_tokenize(self.vocab, raw, len(raw), ids, room, add_special, parse_special)
        assert count >= 0
        return list(ids[:count])

    def chat_template(self):
        template = self.lib.llama_model_chat_template(self.model, None)
        return template and template.decode()

    def is_end(self, token):
        return self.lib.llama_vocab_is_eog(self.vocab, token)

    def reset(self):
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
        self.position = 0

    def decode(self, tokens, first_output=None):
        """Logits [n, vocab_size] of the positions from `first_output` on (default: of the last one)."""
        first_output = len(tokens) - 1 if first_output is None else first_output
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = int(token), self.position + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = i >= first_output
        assert self.lib.llama_decode(self.context, batch) == 0
        self.position += len(tokens)
        rows = [
            np.ctypeslib.as_array(self.lib.llama_get_logits_ith(self.context, i), (self.vocab_size,)).copy()
            for i in range(first_output, len(tokens))
        ]
        return np.stack(rows)


def log_softmax(logits):
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))
