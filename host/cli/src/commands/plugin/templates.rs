//! What `jackfield plugin new` writes: plugins that work as they are, under another name.
//!
//! A template is a plugin of the tree where one is simple enough, so that what strangers start from
//! is what is tested and read; else a file of `host/cli/templates`. Sources are embedded from
//! outside this package's folder: the program is built from the tree, with the plugins in it, and
//! never packaged alone.

/// `src/lib.rs` of each kind in Rust: the kind, the name that the plugin has there, the source.
const RUST: [(&str, &str, &str); 24] = [
    ("adapter", "lora", include_str!("../../../../../plugins/adapter/lora/src/lib.rs")),
    ("backend", "my-plugin", include_str!("../../../templates/rust/backend.rs")),
    ("compressor", "my-plugin", include_str!("../../../templates/rust/compressor.rs")),
    (
        "curriculum",
        "sequential",
        include_str!("../../../../../plugins/curriculum/sequential/src/lib.rs"),
    ),
    (
        "decoding-strategy",
        "greedy",
        include_str!("../../../../../plugins/decoding-strategy/greedy/src/lib.rs"),
    ),
    ("encoder", "bert", include_str!("../../../../../plugins/encoder/bert/src/lib.rs")),
    ("feed-forward", "my-plugin", include_str!("../../../templates/rust/feed_forward.rs")),
    ("hook", "my-plugin", include_str!("../../../templates/rust/hook.rs")),
    (
        "kv-cache",
        "contiguous",
        include_str!("../../../../../plugins/kv-cache/contiguous/src/lib.rs"),
    ),
    (
        "logits-processor",
        "forbid",
        include_str!("../../../../../examples/out-of-tree/rust/src/lib.rs"),
    ),
    ("lr-schedule", "cosine", include_str!("../../../../../plugins/lr-schedule/cosine/src/lib.rs")),
    ("memory", "my-plugin", include_str!("../../../templates/rust/memory.rs")),
    ("mixer", "attention", include_str!("../../../../../plugins/mixer/attention/src/lib.rs")),
    ("model-source", "file", include_str!("../../../../../plugins/model-source/file/src/lib.rs")),
    ("moe-router", "mixtral", include_str!("../../../../../plugins/moe-router/mixtral/src/lib.rs")),
    ("norm", "my-plugin", include_str!("../../../templates/rust/norm.rs")),
    (
        "objective",
        "causal-lm",
        include_str!("../../../../../plugins/objective/causal-lm/src/lib.rs"),
    ),
    ("optimizer", "sgd", include_str!("../../../../../plugins/optimizer/sgd/src/lib.rs")),
    ("output-parser", "my-plugin", include_str!("../../../templates/rust/output_parser.rs")),
    ("quantizer", "my-plugin", include_str!("../../../templates/rust/quantizer.rs")),
    ("residual", "my-plugin", include_str!("../../../templates/rust/residual.rs")),
    ("reward", "length", include_str!("../../../../../plugins/reward/length/src/lib.rs")),
    ("rotary-embedding", "my-plugin", include_str!("../../../templates/rust/rotary_embedding.rs")),
    ("scheduler", "fcfs", include_str!("../../../../../plugins/scheduler/fcfs/src/lib.rs")),
];

/// The kinds, each of which has a template in Rust.
pub(super) fn kinds() -> [&'static str; 24] {
    RUST.map(|(kind, ..)| kind)
}

/// `src/lib.rs` of a plugin with this name; nothing for a kind that is not there.
pub(super) fn rust(kind: &str, name: &str) -> Option<String> {
    let (_, template, source) = RUST.into_iter().find(|(known, ..)| *known == kind)?;
    // The first line is `//! Name in words: what it does.`
    let (_, does) = source.split_once(": ")?;
    let source = format!("//! {}: {does}", title(name));
    let source = with_word(&source, &type_name(template), &type_name(name));
    let source = with_word(&source, &constant_name(template), &constant_name(name));
    let source = source.replace(&format!("\"{template}\""), &format!("\"{name}\""));
    Some(source.replace(&format!("\"{template}/"), &format!("\"{name}/")))
}

/// A text of a template in another language, which names itself once.
pub(super) fn renamed(source: &str, name: &str) -> String {
    source.replacen("forbid", name, 1)
}

/// `min-p` becomes `MinP`.
fn type_name(name: &str) -> String {
    name.split('-').map(title).collect()
}

/// `min-p` becomes `MIN_P`.
fn constant_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

fn title(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

/// `text` with `new` for every `old` that is a word of its own.
fn with_word(text: &str, old: &str, new: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let (mut out, mut done) = (String::new(), 0);
    for (at, _) in text.match_indices(old) {
        let end = at + old.len();
        if !text[..at].ends_with(is_part) && !text[end..].starts_with(is_part) {
            out.push_str(&text[done..at]);
            out.push_str(new);
            done = end;
        }
    }
    out + &text[done..]
}

/// Kinds that may be components.
pub(super) const WASM: [&str; 21] = [
    "adapter",
    "curriculum",
    "decoding-strategy",
    "encoder",
    "feed-forward",
    "hook",
    "logits-processor",
    "lr-schedule",
    "memory",
    "mixer",
    "model-source",
    "moe-router",
    "norm",
    "objective",
    "optimizer",
    "output-parser",
    "quantizer",
    "residual",
    "reward",
    "rotary-embedding",
    "scheduler",
];

/// Why a kind cannot be a component, and what to do, in one sentence.
pub(super) fn no_wasm(kind: &str) -> String {
    let reason = match kind {
        "backend" => {
            ", since they compute with every core in memory of the host, which no component sees"
        }
        "compressor" => {
            ", since one call works on whole weights, for longer than calls of components may"
        }
        "kv-cache" => {
            ", since one that errs lets a request read another's text and one that stops loses the \
             tokens of all, against which a sandbox does not help"
        }
        _ => "",
    };
    format!(
        "plugins of the kind `{kind}` have the lanes builtin and native only{reason}: write it in \
         Rust and build it with `--lane native`"
    )
}

/// The source file of a logits processor in another language, and what it holds.
pub(super) const C: (&str, &str) =
    ("plugin.c", include_str!("../../../../../examples/out-of-tree/c/plugin.c"));
pub(super) const PYTHON: (&str, &str) =
    ("plugin.py", include_str!("../../../../../examples/out-of-tree/python/plugin.py"));
pub(super) const JS: (&str, &str) =
    ("plugin.js", include_str!("../../../../../examples/out-of-tree/js/plugin.js"));

/// What builds JavaScript.
pub(super) const PACKAGE_JSON: &str =
    include_str!("../../../../../examples/out-of-tree/js/package.json");

/// Files of `plugin-api/wit/v0.0`, the interfaces of components.
pub(super) const WIT: [(&str, &str); 12] = [
    (
        "decoding-strategy.wit",
        include_str!("../../../../../plugin-api/wit/v0.0/decoding-strategy.wit"),
    ),
    ("hook.wit", include_str!("../../../../../plugin-api/wit/v0.0/hook.wit")),
    ("host.wit", include_str!("../../../../../plugin-api/wit/v0.0/host.wit")),
    (
        "logits-processor.wit",
        include_str!("../../../../../plugin-api/wit/v0.0/logits-processor.wit"),
    ),
    ("mixer.wit", include_str!("../../../../../plugin-api/wit/v0.0/mixer.wit")),
    ("model-source.wit", include_str!("../../../../../plugin-api/wit/v0.0/model-source.wit")),
    ("quantizer.wit", include_str!("../../../../../plugin-api/wit/v0.0/quantizer.wit")),
    (
        "rotary-embedding.wit",
        include_str!("../../../../../plugin-api/wit/v0.0/rotary-embedding.wit"),
    ),
    ("scheduler.wit", include_str!("../../../../../plugin-api/wit/v0.0/scheduler.wit")),
    ("settings.wit", include_str!("../../../../../plugin-api/wit/v0.0/settings.wit")),
    ("traced.wit", include_str!("../../../../../plugin-api/wit/v0.0/traced.wit")),
    ("types.wit", include_str!("../../../../../plugin-api/wit/v0.0/types.wit")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_keeps_nothing_of_its_name() {
        for (kind, template, source) in RUST {
            let found = rust(kind, "another-name").unwrap();
            assert!(found.starts_with("//! Another-name: "), "{kind}: {found}");
            assert!(found.contains("export_plugin!(AnotherName);"), "{kind}: {found}");
            assert!(found.contains("const NAME: &'static str = \"another-name\";"), "{kind}");
            for part in [type_name(template), format!("\"{template}\""), format!("\"{template}/")] {
                assert!(source.contains(&part) || part.ends_with('/'), "{kind}: {part}");
                assert_eq!(with_word(&found, &part, ""), found, "{kind}: {part}");
            }
        }
        for (_, source) in [C, PYTHON, JS, ("package.json", PACKAGE_JSON)] {
            assert!(source.contains("forbid") && !renamed(source, "other").contains("forbid"));
        }
    }

    #[test]
    fn replaces_whole_words_only() {
        #[rustfmt::skip]
        let cases = [
            ("File, Files, TheFile, File", "Calm, Files, TheFile, Calm"),
            ("FileFile File_ <File>",      "FileFile File_ <Calm>"),
            ("",                           ""),
        ];
        for (text, expected) in cases {
            assert_eq!(with_word(text, "File", "Calm"), expected);
        }
    }
}
