//! Chat templates of real models render as Jinja renders them for `transformers`.
//!
//! `golden/chat_templates.json` was made with Jinja2 3.1.6 set up as `transformers` does
//! (`ImmutableSandboxedEnvironment`, trimmed blocks, loop controls, `tojson` without ASCII escapes)
//! from the templates inside the same GGUF files. `JACKFIELD_MODELS` names their folder; without
//! one of them its part is skipped, with the reason printed.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code outside #[test] functions")]

use std::path::{Path, PathBuf};

use jackfield_engine::model::{Message, ModelFiles};
use serde_json::Value;

const MODELS: [(&str, &str); 2] = [
    ("smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    ("qwen2", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"),
];

fn model(file: &str) -> Option<ModelFiles> {
    let Some(folder) = std::env::var_os("JACKFIELD_MODELS") else {
        println!("SKIP {file}: JACKFIELD_MODELS is not set");
        return None;
    };
    let path = PathBuf::from(folder).join(file);
    if !path.exists() {
        println!("SKIP {}: no such file", path.display());
        return None;
    }
    Some(ModelFiles::open(&path).unwrap())
}

fn message(value: &Value) -> Message {
    let mut extra = value.as_object().unwrap().clone();
    let role = extra.shift_remove("role").unwrap().as_str().unwrap().to_owned();
    let content = extra.shift_remove("content").unwrap();
    Message { role, content, extra }
}

#[test]
fn renders_as_jinja_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/chat_templates.json");
    let cases: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (name, file) in MODELS {
        let Some(model) = model(file) else { continue };
        let template = model.chat_template().unwrap().unwrap();
        for case in cases.as_array().unwrap() {
            let messages: Vec<_> =
                case["messages"].as_array().unwrap().iter().map(message).collect();
            let asks = case["add_generation_prompt"].as_bool().unwrap();
            let tools = Some(&case["tools"]).filter(|tools| !tools.is_null());
            let text = template.render(&messages, asks, tools, "", "<|im_end|>").unwrap();
            assert_eq!(text, case[name].as_str().unwrap(), "{name}: {messages:?}");
        }
    }
}
