//! Templates as models bring them, and as an attacker would.

use serde_json::json;

use super::*;

fn template(source: &str) -> Result<ChatTemplate, ModelError> {
    ChatTemplate::new(Path::new("test.gguf"), source)
}

fn render(source: &str) -> Result<String, ModelError> {
    let messages = [Message::new("system", " be kind "), Message::new("user", "<hi> & bye")];
    template(source)?.render(&messages, true, None, "<s>", "</s>")
}

#[test]
fn does_what_templates_of_models_need() {
    #[rustfmt::skip]
    let cases = [
        ("{% for m in messages %}{{ '<|' + m['role'] + '|>' + m.content }}{% endfor %}",
            "<|system|> be kind <|user|><hi> & bye"),
        ("{{ bos_token }}{% if add_generation_prompt %}go{% endif %}{{ eos_token }}", "<s>go</s>"),
        ("  {% if true %}\na\n  {% endif %}\nb", "a\nb"),
        ("{{ messages[0].content.strip() | upper }}{{ messages[-1]['role'] }}", "BE KINDuser"),
        ("{{ 'a</think>b'.split('</think>')[-1] }}{{ 'x'.startswith('x') }}", "bTrue"),
        ("{{ messages[1:] | length }}{{ messages[::-1][0].role }}", "1user"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "2"),
        ("{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}", "system"),
        ("{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f('a') }}{{ tools is none }}", "[a]True"),
        ("{% generation %}a{% endgeneration %}", "a"),
        ("{{ strftime_now is defined }}", "False"),
        ("{% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}{{ v }}{% endfor %}", "b1a2"),
        ("{{ messages[0].content is string }}{{ messages[0].tool_calls is defined }}", "TrueFalse"),
    ];
    for (source, expected) in cases {
        assert_eq!(render(source).unwrap(), expected, "{source}");
    }
}

#[test]
fn writes_json_as_python_does() {
    let tools = json!([{"type": "function", "b": [1, 2.5, null], "a": "<ü'\"&>", "e": {}}]);
    let render =
        |source| template(source).unwrap().render(&[], false, Some(&tools), "", "").unwrap();
    let line = r#"[{"type": "function", "b": [1, 2.5, null], "a": "<ü'\"&>", "e": {}}]"#;
    assert_eq!(render("{{ tools | tojson }}"), line);
    assert_eq!(render("{{ tools | tojson(ensure_ascii=False) }}"), line);
    assert_eq!(render("{{ tools[0].b | tojson(indent=2) }}"), "[\n  1,\n  2.5,\n  null\n]");
}

#[test]
fn passes_on_what_the_template_says_when_it_refuses() {
    let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
    let ModelError::Template { source, .. } = &error else { panic!("{error}") };
    assert!(source.to_string().contains("roles must alternate"), "{source}");
    assert!(error.to_string().contains("test.gguf: expected a chat template that renders"));
}

#[test]
fn tells_the_time_when_it_has_a_clock() {
    let template = template("{{ strftime_now('%d %b %Y') }}").unwrap();
    assert!(template.render(&[], false, None, "", "").is_err());
    let template = template.with_clock(|| 1_709_251_199);
    assert_eq!(template.render(&[], false, None, "", "").unwrap(), "29 Feb 2024");
}

#[test]
fn shows_extra_fields_of_messages() {
    let mut message = Message::new("assistant", "");
    message.extra.insert("tool_calls".into(), json!([{"function": {"name": "f"}}]));
    let template = template("{{ messages[0].tool_calls[0].function.name }}").unwrap();
    assert_eq!(template.render(&[message], false, None, "", "").unwrap(), "f");
}

#[test]
fn stops_hostile_templates() {
    let deep = format!("{}a{}", "{% if true %}".repeat(400), "{% endif %}".repeat(400));
    let parentheses = format!("{{{{ {}1{} }}}}", "(".repeat(10_000), ")".repeat(10_000));
    #[rustfmt::skip]
    let cases = [
        ("does not parse", "{% for %}".to_owned()),
        ("unknown tag",    "{% include 'x' %}{% frobnicate %}".to_owned()),
        ("include",        "{% include '/etc/passwd' %}".to_owned()),
        ("endless loops",  "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}".to_owned()),
        ("endless macro",  "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned()),
        ("huge output",    format!("{{% for a in range(9999) %}}{}{{% endfor %}}", "x".repeat(9999))),
        ("huge string",    "{{ 'x' * 9999999999 }}".to_owned()),
        ("nested blocks",  deep),
        ("parentheses",    parentheses),
        ("huge template",  "x".repeat(SOURCE_BYTES_MAX + 1)),
    ];
    for (name, source) in cases {
        assert!(matches!(render(&source), Err(ModelError::Template { .. })), "{name}");
    }
}

#[test]
fn reads_both_forms_of_a_tokenizer_config() {
    let path = Path::new("tokenizer_config.json");
    let read = |config| ChatTemplate::from_tokenizer_config(path, &config).unwrap();
    assert!(read(json!({})).is_none());
    assert_eq!(read(json!({"chat_template": "a"})).unwrap().source(), "a");
    let named = json!({"chat_template": [
        {"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]});
    let template = read(named).unwrap();
    assert_eq!(template.render(&[], false, None, "", "").unwrap(), "plain");
    assert_eq!(template.render(&[], false, Some(&json!([])), "", "").unwrap(), "tools");
}
