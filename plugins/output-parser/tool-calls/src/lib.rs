//! Calls of tools in answers, as Hermes and Qwen write them, and as Llama 3 does.

mod answer;

use std::collections::BTreeMap;

use plugin_api::prelude::*;

use answer::{Answer, Mode};

/// Finds calls of tools.
#[derive(Debug, Default)]
pub struct ToolCalls {
    /// Answers to requests without tools are not here.
    answers: BTreeMap<AnswerId, Answer>,
}

impl Capability for ToolCalls {
    const NAME: &'static str = "tool-calls";

    fn from_config(_: &Config) -> Result<Self> {
        Ok(Self::default())
    }
}

impl OutputParser for ToolCalls {
    fn open(&mut self, answer: AnswerId, params: &Config) -> Result<()> {
        let names = params.list("tools")?.iter().map(|name| match name {
            Value::Text(name) => Ok(name.clone()),
            other => Err(params.wrong("tools", "names of tools", Some(other))),
        });
        let names = names.collect::<Result<Vec<_>>>()?;
        let named = params.text_or("tool_named", "")?;
        let mode = match params.one_of("tool_choice", &["auto", "required"])? {
            _ if !named.is_empty() => Mode::Named(named.to_owned()),
            "required" => Mode::Required,
            _ => Mode::Auto,
        };
        let calls_max = params.count_or("tool_calls_max", u64::from(u32::MAX), 1..=1 << 32)?;
        if names.is_empty() {
            self.answers.remove(&answer);
        } else {
            self.answers.insert(answer, Answer::new(names, mode, calls_max));
        }
        Ok(())
    }

    fn push(&mut self, answer: AnswerId, text: &str, out: &mut Vec<Piece>) -> Result<()> {
        match self.answers.get_mut(&answer) {
            Some(answer) => answer.push(text, out),
            None if text.is_empty() => {}
            None => out.push(Piece::Content(text.to_owned())),
        }
        Ok(())
    }

    fn finish(&mut self, answer: AnswerId, out: &mut Vec<Piece>) -> Result<()> {
        if let Some(answer) = self.answers.get_mut(&answer) {
            answer.finish(out);
        }
        Ok(())
    }

    fn close(&mut self, answer: AnswerId) {
        self.answers.remove(&answer);
    }
}

export_plugin!(ToolCalls);

#[cfg(test)]
mod tests {
    use plugin_api::testing::output_parser::{self, parts};

    use super::*;

    fn offered() -> Config {
        let names = ["f", "weather"].map(Value::from).to_vec();
        Config::new().with("tools", names)
    }

    #[test]
    fn passes_the_contract_suite() {
        let texts = [
            "Let me see. <tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Zürich\"}}\n</tool_call>\n\
             <tool_call>[{\"name\": \"f\"}, {\"name\": \"f\", \"arguments\": \"{}\"}]</tool_call> done",
            "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"weather\", \"parameters\": {\"city\": \"Bern\"}}",
        ];
        output_parser::suite::<ToolCalls>(&offered(), &texts);
        let required = offered().with("tool_choice", "required");
        let found = parts(&mut ToolCalls::default(), &required, &texts[1..]);
        assert_eq!(found.len(), 4, "{found:?}");
    }

    /// What is found in a text that comes letter by letter, in short.
    fn found(params: &Config, answer: &str) -> String {
        let letters: Vec<String> = answer.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        let pieces = parts(&mut ToolCalls::default(), params, &letters);
        let shown = pieces.into_iter().map(|piece| match piece {
            Piece::Content(text) | Piece::Reasoning(text) => format!("[{text}]"),
            Piece::ToolCall { index, name } => format!("{index}:{name}"),
            Piece::Arguments { text, .. } => text,
        });
        shown.collect()
    }

    #[test]
    fn finds_calls_in_every_way_of_writing_them() {
        #[rustfmt::skip]
        let cases = [
            // answer                                                             what is found
            ("<tool_call>{\"name\":\"f\",\"arguments\":{\"b\":1,\"a\":2}}</tool_call>", "0:f{\"b\":1,\"a\":2}"),
            ("I look.\n\n<tool_call>\n{\"name\":\"f\"}\n</tool_call>\n",          "[I look.]0:f{}"),
            ("<tool_call>{\"name\":\"f\"}</tool_call> <tool_call>{\"name\":\"weather\"}</tool_call>", "0:f{}1:weather{}"),
            ("<tool_call>{\"name\":\"f\"}</tool_call>\nthere",                    "0:f{}[there]"),
            ("<tool_call>{\"name\":\"f\",\"arguments\":{}}",                      "0:f{}"),
            ("<tool_call>{\"name\":\"f\",\"argu",                                 "[<tool_call>{\"name\":\"f\",\"argu]"),
            ("<tool_call>{\"name\":\"g\"}</tool_call>",                           "[<tool_call>{\"name\":\"g\"}</tool_call>]"),
            ("<tool_call>{\"name\":\"f\",\"arguments\":3}</tool_call>",           "[<tool_call>{\"name\":\"f\",\"arguments\":3}</tool_call>]"),
            ("{\"name\":\"f\",\"parameters\":{\"x\":[1]}}",                       "0:f{\"x\":[1]}"),
            ("\n{\"name\":\"f\",\"parameters\":{}} ; {\"name\":\"weather\",\"parameters\":{}}", "0:f{}1:weather{}"),
            ("{\"name\":\"f\",\"parameters\":{}} and so on",                      "[{\"name\":\"f\",\"parameters\":{}} and so on]"),
            ("{\"x\":1}",                                                         "[{\"x\":1}]"),
            ("so: {\"name\":\"f\",\"parameters\":{}}",                            "[so: {\"name\":\"f\",\"parameters\":{}}]"),
            (" a <tool b \n",                                                     "[ a <tool b \n]"),
        ];
        for (answer, expected) in cases {
            assert_eq!(found(&offered(), answer), expected, "{answer}");
        }
        assert_eq!(found(&Config::new(), cases[0].0), format!("[{}]", cases[0].0));
    }

    #[test]
    fn a_choice_says_what_the_answer_is() {
        let named = offered().with("tool_named", "weather");
        assert_eq!(found(&named, "{\"city\": \"Bern\"}"), "0:weather{\"city\": \"Bern\"}");
        assert_eq!(found(&named, ""), "0:weather");
        let required = offered().with("tool_choice", "required");
        let call = "{\"name\": \"f\", \"arguments\": {\"x\": 1}}";
        assert_eq!(found(&required, call), "0:f{\"x\":1}");
        assert_eq!(found(&required, &call[..20]), format!("[{}]", &call[..20]));
    }

    #[test]
    fn further_calls_are_left_out_where_one_is_asked_for() {
        let one = offered().with("tool_calls_max", 1);
        let call = "<tool_call>{\"name\":\"f\"}</tool_call>";
        assert_eq!(found(&one, &format!("{call}{call}")), "0:f{}");
    }

    #[test]
    fn parameters_of_the_wrong_type_are_refused() {
        let mut parser = ToolCalls::default();
        let wrong = Config::new().with("tools", vec![Value::Int(1)]);
        let error = parser.open(AnswerId(0), &wrong).unwrap_err();
        assert_eq!(error.to_string(), "tools: expected names of tools, found 1");
    }
}
